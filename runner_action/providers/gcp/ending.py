"""Deleting instances with their firewall rules, and rules whose machines are gone."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError

from runner_action.errors import ProviderError, TimedOut
from runner_action.model import OWNER_TAG
from runner_action.providers.base import made_by
from runner_action.providers.gcp import sdk
from runner_action.providers.gcp.compute import SAFE, Compute
from runner_action.providers.gcp.errors import NOT_YET, codes_of, translated
from runner_action.providers.gcp.instance import instance_of
from runner_action.providers.gcp.requests import RULE, rule_name
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
READY_SECONDS = 90.0
"""How long a machine may take before it can be deleted."""
RULE_AGE = timedelta(hours=1)
"""A younger rule may be for a machine that is being created."""
LATER = "a later sweep deletes it, if the launcher may (docs/gcp.md)."


class Ending:
    """Deletes instances and firewall rules."""

    def __init__(self, compute: Compute, clock: Clock) -> None:
        self._compute = compute
        self._clock = clock

    def delete(self, zone: str, number: str, with_rule: bool) -> bool:
        """Deletes the machine, which costs, then its rule. An accepted deletion cannot be undone; a
        machine that is still being created is waited for. `number`: its id, which unlike its name
        no other machine ever gets. False: there was no such machine."""
        with translated(f"deleting {number}"):
            named = self._named_by_rule(zone, number) if with_rule else ""
            there = wait_for(
                lambda: self._delete_once(zone, number),
                f"{number} to be ready for deletion",
                clock=self._clock,
                timeout=READY_SECONDS,
                most=3,
            )
            if named:
                self._close_ssh(named)
            return there

    def _delete_once(self, zone: str, number: str) -> bool | None:
        """None: not yet."""
        try:
            self._compute.client(sdk.InstancesClient).delete_unary(
                project=self._compute.project, zone=zone, instance=number, **SAFE
            )
        except NotFound:
            return False
        except GoogleAPICallError as error:
            if NOT_YET in codes_of(error):
                return None
            raise
        return True

    def _named_by_rule(self, zone: str, number: str) -> str:
        """The name of a machine that has a firewall rule, by its network tag. Empty: it has none,
        or that is unknown; `close_rules` finds the rule when the machine is gone."""
        try:
            machine = self._compute.client(sdk.InstancesClient).get(
                project=self._compute.project, zone=zone, instance=number, **SAFE
            )
        except NotFound:
            return ""
        except (GoogleAPICallError, RetryError) as error:
            log.warning(
                "Could not check whether %s has a firewall rule (%s). Without its machine it opens"
                " nothing; %s",
                number,
                _reason(error),
                LATER,
            )
            return ""
        return str(machine.name) if machine.name in machine.tags.items else ""

    def has_own_rule(self, machine: str) -> bool:
        """Whether the firewall rule for a machine of that name is there and one of ours."""
        request = sdk.types.ListFirewallsRequest(
            project=self._compute.project, filter=f'name = "{rule_name(machine)}"'
        )
        return any(
            rule.description == RULE and list(rule.target_tags) == [machine]
            for rule in self._compute.client(sdk.FirewallsClient).list(request=request, **SAFE)
        )

    def _close_ssh(self, machine: str) -> None:
        rule = rule_name(machine)
        try:
            if self.has_own_rule(machine):
                self._compute.client(sdk.FirewallsClient).delete_unary(
                    project=self._compute.project, firewall=rule, **SAFE
                )
        except NotFound:
            return
        except (GoogleAPICallError, RetryError) as error:
            log.warning(
                "The firewall rule %s could not be deleted (%s). Without its machine it opens"
                " nothing; %s",
                rule,
                _reason(error),
                LATER,
            )

    def after_failure(
        self, zone: str, name: str, launch: str, *, number: str, with_rule: bool
    ) -> None:
        """Deletes what the launch with this token created under that name, and nothing of
        others. `number`: the id of the machine, if Google has said it."""
        try:
            with translated(f"looking for {name}"):
                number = number or self._number(zone, name, launch)
            if number:
                self.delete(zone, number, with_rule=False)
            if with_rule:
                self._close_ssh(name)
        except (ProviderError, TimedOut) as error:
            log.warning("Could not confirm that %s was deleted: %s", name, error)

    def _number(self, zone: str, name: str, launch: str) -> str:
        """The id of the machine that the launch created under that name; empty: there is none."""
        try:
            there = self._compute.client(sdk.InstancesClient).get(
                project=self._compute.project, zone=zone, instance=name, **SAFE
            )
        except NotFound:
            return ""
        return str(there.id) if made_by(launch, instance_of(there)) else ""

    def close_rules(self, now: datetime) -> None:
        """Deletes firewall rules whose machines are gone: they allow nothing, and cost nothing but
        quota."""
        request = sdk.types.AggregatedListInstancesRequest(
            project=self._compute.project, filter=f'(labels.{OWNER_TAG} = "runner")'
        )
        try:
            with translated("looking for firewall rules of machines that are gone"):
                rules = [
                    rule
                    for rule in self._rules()
                    if now - datetime.fromisoformat(rule.creation_timestamp) > RULE_AGE
                ]
                pages = (
                    self._compute.client(sdk.InstancesClient).aggregated_list(
                        request=request, **SAFE
                    )
                    if rules
                    else ()
                )
                machines = {machine.name for _, scope in pages for machine in scope.instances}
                for rule in (rule for rule in rules if not machines & set(rule.target_tags)):
                    self._compute.client(sdk.FirewallsClient).delete_unary(
                        project=self._compute.project, firewall=rule.name, **SAFE
                    )
                    log.info("Deleted the firewall rule %s, whose machine is gone.", rule.name)
        except ProviderError as error:
            # Launches without an SSH key have no rules, and need no permissions for them.
            log.debug("%s", error)

    def _rules(self) -> list[Any]:
        request = sdk.types.ListFirewallsRequest(
            project=self._compute.project, filter=f'description = "{RULE}"'
        )
        return list(self._compute.client(sdk.FirewallsClient).list(request=request, **SAFE))


def _reason(error: GoogleAPICallError | RetryError) -> str:
    return (
        ", ".join(codes_of(error) if isinstance(error, GoogleAPICallError) else ())
        or type(error).__name__
    )
