"""Creating instances, each followed to the end of its operation. What fails leaves nothing."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.auth.exceptions import TransportError
from requests.exceptions import RequestException

from runner_action.errors import NotOurs
from runner_action.model import Instance, Machine
from runner_action.providers.base import Created, create_all, made_by
from runner_action.providers.gcp import requests, sdk
from runner_action.providers.gcp.compute import CALL, SAFE, Compute
from runner_action.providers.gcp.ending import Ending
from runner_action.providers.gcp.errors import of_operation, passes, translated
from runner_action.providers.gcp.instance import instance_of
from runner_action.providers.gcp.requests import GcpPlacement
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
CREATE_SECONDS = 180.0
"""How long one creation may take, from the request to the end of its operation."""


class Creation:
    """The provider's `create`."""

    def __init__(self, compute: Compute, ending: Ending, clock: Clock) -> None:
        self._compute = compute
        self._ending = ending
        self._clock = clock

    def create(self, placement: GcpPlacement, machine: Machine, count: int) -> Created:
        """Creates all instances in parallel, each with a name and a request id of its own."""
        place = (placement.pools[0].zone, placement.pools[0].instance_type, str(placement.spot))
        name = machine.identity.name
        names = [name]
        if count > 1:
            tokens = [machine.identity.token(*place, str(number)) for number in range(count)]
            names = [f"{name}-{token[:8]}" for token in tokens]
        return create_all([partial(self._create_one, placement, machine, name) for name in names])

    def _create_one(self, placement: GcpPlacement, machine: Machine, name: str) -> Instance:
        """Creates one machine and waits for the end of the operation. If that fails, what this
        launch created is deleted."""
        zone, doing = placement.pools[0].zone, f"creating {placement}"
        launch, number = machine.identity.token(), ""
        try:
            with translated(doing):
                if placement.with_rule:
                    self._open_ssh(placement, name)
                try:
                    operation = self._insert(placement, machine, name)
                    number = str(operation.target_id or "")
                    self._finish(operation, zone, doing)
                except Conflict as error:
                    # An earlier try of this launch created it, or others did.
                    created = self._get(zone, name)
                    if not made_by(launch, instance_of(created)):
                        raise NotOurs(f"a machine {name} in {zone}") from error
                else:
                    created = self._get(zone, name)
        except BaseException:
            self._ending.after_failure(
                zone, name, launch, number=number, with_rule=placement.with_rule
            )
            raise
        return replace(instance_of(created), name=machine.identity.name, login=placement.login)

    def _insert(self, placement: GcpPlacement, machine: Machine, name: str) -> Any:
        """The operation, as soon as Google has begun it."""
        request = sdk.types.InsertInstanceRequest(
            project=self._compute.project,
            zone=placement.pools[0].zone,
            instance_resource=sdk.types.Instance(requests.instance(placement, machine, name)),
            # A new one for each try: to a later try with the same id, after the machine's end,
            # Google would answer with the old operation.
            request_id=str(uuid.uuid4()),
        )
        return wait_for(
            partial(self._once, self._compute.client(sdk.InstancesClient).insert_unary, request),
            f"Google Cloud, while creating {placement}",
            clock=self._clock,
            timeout=60,
        )

    def _get(self, zone: str, name: str) -> Any:
        return self._compute.client(sdk.InstancesClient).get(
            project=self._compute.project, zone=zone, instance=name, **SAFE
        )

    def _once(self, call: Callable[..., Any], request: Any) -> Any | None:
        """None: retry with the same request id."""
        try:
            return call(request=request, **CALL)
        except (GoogleAPICallError, RequestException, TransportError) as error:
            if passes(error):  # also without an answer: the request id prevents a second machine
                return None
            raise

    def _finish(self, operation: Any, zone: str, doing: str) -> None:
        """Waits for the end of an operation, and raises its error. Polls with our own client: the
        SDK's polling knows Google's public address only."""
        done = sdk.types.Operation.Status.DONE
        request = sdk.types.GetZoneOperationRequest(
            project=self._compute.project, zone=zone, operation=operation.name
        )

        def probe() -> Any | None:
            current = self._once(self._compute.client(sdk.ZoneOperationsClient).get, request)
            return current if current is not None and current.status == done else None

        if operation.status != done:
            operation = wait_for(
                probe,
                f"Google Cloud, while {doing}",
                clock=self._clock,
                timeout=CREATE_SECONDS,
                first=0.5,
                most=3,
            )
        if operation.error.errors:
            raise of_operation(operation, doing)

    def _open_ssh(self, placement: GcpPlacement, name: str) -> None:
        rule = sdk.types.Firewall(requests.firewall(placement, name))
        try:
            self._compute.client(sdk.FirewallsClient).insert_unary(
                project=self._compute.project, firewall_resource=rule, **SAFE
            )
        except Conflict as error:
            # The answer to an earlier try was lost, or a machine of that name was deleted without
            # its rule.
            if not self._ending.has_own_rule(name):
                raise NotOurs(f"a firewall rule {rule.name}") from error
