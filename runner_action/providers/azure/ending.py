"""Deleting groups, and finding those whose machine has stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from azure.core.exceptions import ResourceNotFoundError

from runner_action.errors import ProviderError
from runner_action.model import OWNER_TAG
from runner_action.providers.azure.arm import COMPUTE, GROUPS, Arm, Json
from runner_action.providers.azure.errors import translated
from runner_action.providers.azure.instance import STOPPED, group_as_instance, group_of, is_of
from runner_action.providers.base import made_by

log = logging.getLogger(__name__)


class Ending:
    """Deletes machines with their groups."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def groups(self) -> Iterator[Mapping[str, Any]]:
        """Groups with our tag, without those that are being deleted."""
        listed = self._arm.listed(
            "/resourcegroups",
            GROUPS,
            **{"$filter": f"tagName eq '{OWNER_TAG}' and tagValue eq 'runner'"},
        )
        return (
            group for group in listed if group["properties"].get("provisioningState") != "Deleting"
        )

    def delete(self, group: str, launch: str) -> bool:
        """Deletes the group if the launch with this token created it and all machines in it.
        False: there is none."""
        with translated(f"deleting {group}"):
            there = self.there(self._arm.group(group), GROUPS)
            if there is None:
                return False
            if not self._is_of(launch, there):
                log.warning(
                    "The resource group %s was not deleted: it, or a machine in it, was not created"
                    " by this launch.",
                    group,
                )
                return False
            return self._arm.delete_group(group)

    def after_failure(self, group: str, launch: str) -> None:
        """The same; an error is logged, as the failure that led here is the one to report."""
        try:
            self.delete(group, launch)
        except ProviderError as error:
            log.warning("Could not confirm that %s was deleted: %s", group, error)

    def there(self, path: str, version: str) -> Json | None:
        """What Azure has at that path; None: nothing."""
        try:
            return self._arm.get(path, version)
        except ResourceNotFoundError:
            return None

    def _is_of(self, launch: str, group: Json) -> bool:
        if not made_by(launch, group_as_instance(group)):
            return False
        path = f"{self._arm.group(group['name'])}/providers/Microsoft.Compute/virtualMachines"
        machines = (self.there(path, COMPUTE) or {}).get("value", ())
        return all(is_of(launch, machine) for machine in machines)

    def stopped(self) -> frozenset[str]:
        """Names of groups, in lower case, whose machine has stopped: on Azure a stopped machine
        costs as much as a running one."""
        statuses = self._arm.listed(
            "/providers/Microsoft.Compute/virtualMachines", COMPUTE, statusOnly="true"
        )
        return frozenset(
            group_of(machine["id"]).lower()
            for machine in statuses
            if _codes(machine) & set(STOPPED)
        )


def _codes(machine: Mapping[str, Any]) -> set[str]:
    return {
        status["code"]
        for status in machine["properties"].get("instanceView", {}).get("statuses", ())
    }
