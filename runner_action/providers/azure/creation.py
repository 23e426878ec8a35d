"""Creating machines: a resource group for each, its network in parallel, then the machine with all
that belongs to it. What fails leaves nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.mgmt.core.polling.arm_polling import ARMPolling
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runner_action.errors import NotOurs, ProviderError
from runner_action.model import Instance, Machine
from runner_action.providers.azure import requests
from runner_action.providers.azure.arm import COMPUTE, GROUPS, NETWORK, Arm, Json
from runner_action.providers.azure.ending import Ending
from runner_action.providers.azure.errors import codes_of, translated
from runner_action.providers.azure.instance import group_as_instance, instance_of, is_of
from runner_action.providers.azure.requests import AzurePlacement
from runner_action.providers.base import Created, create_all, made_by

log = logging.getLogger(__name__)
CREATE_SECONDS = 600.0
"""How long one creation may take, from the request to the end of its operation."""
LOOK_SECONDS = 3.0
NAMES = 5
"""How many names one try may use for its group, if earlier ones are still being deleted."""


class Polling(ARMPolling):
    """Polls more often than Azure suggests: its ten seconds would delay the launch."""

    def _extract_delay(self) -> float:
        return min(float(super()._extract_delay()), LOOK_SECONDS)


class Creation:
    """The provider's `create`."""

    def __init__(self, arm: Arm, ending: Ending) -> None:
        self._arm = arm
        self._ending = ending

    def create(self, placement: AzurePlacement, machine: Machine, count: int) -> Created:
        """Creates all machines in parallel, each in a group of its own."""
        pool = placement.pools[0]
        place = (placement.region, pool.zone, pool.instance_type, str(placement.spot))
        tries = [(*place, *([str(number)] if count > 1 else [])) for number in range(count)]
        return create_all([partial(self._create_one, placement, machine, parts) for parts in tries])

    def _create_one(
        self, placement: AzurePlacement, machine: Machine, parts: Sequence[str]
    ) -> Instance:
        """Creates one machine and waits for the end of the operation. If that fails, its group is
        deleted, as far as this launch created it."""
        doing = f"creating {placement}"
        with translated(doing):
            group = self._group(placement, machine, parts)
        try:
            with translated(doing):
                subnet, security = self._network(placement, machine, group)
                created = self._machine(placement, machine, group, subnet, security, doing)
        except BaseException:
            self._ending.after_failure(group, machine.identity.token())
            raise
        return replace(instance_of(created), name=machine.identity.name, login=placement.login)

    def _group(self, placement: AzurePlacement, machine: Machine, parts: Sequence[str]) -> str:
        """Creates a group, whose name is that of this try. If a group of that name is still being
        deleted, which takes minutes, the next name is used."""
        for number in range(NAMES):
            token = machine.identity.token(*parts, *(["again"] * number))
            name = f"{machine.identity.name}-{token[:8]}"
            self._refuse_others(name, machine)
            try:
                self._arm.put(
                    self._arm.group(name), GROUPS, requests.group(placement.region, machine.tags)
                )
            except BaseException as error:
                if (
                    number < NAMES - 1
                    and isinstance(error, HttpResponseError)
                    and "ResourceGroupBeingDeleted" in codes_of(error)
                ):
                    continue
                self._ending.after_failure(name, machine.identity.token())
                raise
            return name
        raise AssertionError("the last name returns or raises")

    def _refuse_others(self, group: str, machine: Machine) -> None:
        """Raises NotOurs if the names are taken: Azure would change a group that exists, not refuse
        to create it."""
        there = self._ending.there(self._arm.group(group), GROUPS)
        if there is None:
            return
        launch = machine.identity.token()
        if not made_by(launch, group_as_instance(there)):
            raise NotOurs(f"a resource group {group}")
        instance = self._ending.there(self._path(group, machine), COMPUTE)
        if instance is not None and not is_of(launch, instance):
            raise NotOurs(f"a machine {machine.identity.name} in {group}")

    def _path(self, group: str, machine: Machine) -> str:
        where = f"{self._arm.group(group)}/providers/Microsoft.Compute"
        return f"{where}/virtualMachines/{machine.identity.name}"

    def _network(self, placement: AzurePlacement, machine: Machine, group: str) -> tuple[str, str]:
        """Creates the network; returns the ids of subnet and security group."""
        where = f"{self._arm.group(group)}/providers/Microsoft.Network"
        region = placement.region
        tags = machine.tags
        with ThreadPoolExecutor(2) as side_by_side:
            body = requests.security_group(region, tags, placement.ssh_public_key is not None)
            security = side_by_side.submit(
                self._arm.put, f"{where}/networkSecurityGroups/security", NETWORK, body
            )
            network = None
            if placement.subnet is None:
                network = side_by_side.submit(
                    self._arm.put,
                    f"{where}/virtualNetworks/network",
                    NETWORK,
                    requests.network(region, tags),
                )
            subnet = placement.subnet or (
                network.result()["properties"]["subnets"][0]["id"] if network else ""
            )
            return subnet, security.result()["id"]

    def _machine(
        self,
        placement: AzurePlacement,
        machine: Machine,
        group: str,
        subnet: str,
        security: str,
        doing: str,
    ) -> Json:
        body = requests.virtual_machine(
            placement, machine, subnet, security, placement.ssh_public_key or discarded_key()
        )
        try:
            poller = self._arm.compute.virtual_machines.begin_create_or_update(
                group, machine.identity.name, body, polling=Polling(LOOK_SECONDS)
            )  # type: ignore[call-overload]
        except ResourceExistsError as error:
            # An earlier try of this launch created it, with another discarded key.
            if getattr(error.error, "code", "") != "PropertyChangeNotAllowed":
                raise
            there = self._arm.get(self._path(group, machine), COMPUTE)
            if not is_of(machine.identity.token(), there):
                raise NotOurs(f"a machine {machine.identity.name} in {group}") from error
            return there
        poller.wait(CREATE_SECONDS)
        if not poller.done():
            raise ProviderError(
                f"Azure did not finish within {CREATE_SECONDS:.0f} s while {doing}.",
                "Try again, or use another `cloud-region`.",
            )
        created: Json = poller.result().as_dict()
        return created


def discarded_key() -> str:
    """A public key whose private half is thrown away: Azure creates no machine without a password
    or a key."""
    return (
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        .decode()
    )
