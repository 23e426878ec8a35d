"""Azure as a provider: look-ups in parallel, and a resource group for each machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import requests as http
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from runner_action.agent.azure import CANNOT_DELETE
from runner_action.errors import ConfigurationError, CredentialsError
from runner_action.model import (
    LAUNCH_TAG,
    NAME_TAG,
    Deletion,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.providers.azure import plan as planning
from runner_action.providers.azure.arm import COMPUTE, NETWORK, SKUS, Arm, Json
from runner_action.providers.azure.creation import Creation
from runner_action.providers.azure.ending import Ending
from runner_action.providers.azure.errors import CREDENTIALS, codes_of, translated
from runner_action.providers.azure.instance import group_as_instance, instance_of, is_of
from runner_action.providers.azure.ladder import Facts, placements
from runner_action.providers.azure.requests import AzurePlacement
from runner_action.providers.base import Created, proven
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
CANNOT_DELETE_HINT = (
    "Give it a user-assigned identity that may delete resource groups, as `cloud-permission-set`"
    " (docs/azure.md says how to make one), or the launcher a service principal (AZURE_CLIENT_ID,"
    " AZURE_TENANT_ID, AZURE_CLIENT_SECRET)."
)


class AzureProvider:
    """Virtual machines in one subscription."""

    name, regional = ProviderName.AZURE, False

    def __init__(self, arm: Arm, clock: Clock) -> None:
        self._arm = arm
        self._ending = Ending(arm)
        self._clock = clock
        self._creation = Creation(arm, self._ending)

    @property
    def user_data_limit(self) -> int:
        return planning.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return planning.plan(request)

    def deletion(self, request: CloudRequest) -> Deletion | None:
        """As its identities, or as the launcher's service principal if the secret is known:
        whichever is permitted. An identity may lack the permission, so the secret is passed in any
        case. Raises CredentialsError if there is neither."""
        facts = {
            "api": self._arm.endpoint,
            "identities": [
                part.strip() for part in (request.permission_set or "").split(",") if part.strip()
            ],
        }
        secret = self._arm.account.secret
        if not facts["identities"] and secret is None:
            raise CredentialsError(CANNOT_DELETE, CANNOT_DELETE_HINT)
        return Deletion(facts, secret)

    # --- looking things up

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """Looks up the image and what each region offers, in parallel."""
        regions = list(dict.fromkeys(place.region for place in plan.places))
        with (
            translated("looking up image and sizes"),
            ThreadPoolExecutor(1 + len(regions)) as side_by_side,
        ):
            image = side_by_side.submit(self._image, plan.image, regions[0])
            skus = {region: side_by_side.submit(self._skus, region) for region in regions}
            (reference, described), offered = (
                image.result(),
                {region: future.result() for region, future in skus.items()},
            )
        return placements(plan, request, Facts(image=described, reference=reference, skus=offered))

    def _skus(self, region: str) -> list[Json] | None:
        """The sizes that a region offers; None if the credentials may not ask."""
        try:
            skus = self._arm.listed(
                "/providers/Microsoft.Compute/skus", SKUS, **{"$filter": f"location eq '{region}'"}
            )
            return [sku for sku in skus if sku["resourceType"] == "virtualMachines"]
        except HttpResponseError as error:
            if not CREDENTIALS & set(codes_of(error)):
                raise
            log.debug("%s", codes_of(error))
            return None

    def _image(self, image: str, region: str) -> tuple[str, Json | None]:
        """The image with its newest version, and its description; None for an image of the
        user's own, which Azure checks when it creates a machine from it."""
        if image.startswith("/"):
            return image, None
        publisher, offer, sku, version = image.split(":")
        path = (
            f"/subscriptions/{self._arm.account.subscription}/providers/Microsoft.Compute"
            f"/locations/{region}/publishers/{publisher}"
            f"/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"
        )
        try:
            if version == "latest":
                # The answer is the list of versions itself, not a page.
                newest: Any = self._arm.get(path, COMPUTE, **{"$top": "1", "$orderby": "name desc"})
                if not newest:
                    raise ConfigurationError(
                        f"There is no version of the image {image} in {region}.",
                        "Give `publisher:offer:sku:version` as `cloud-image`.",
                    )
                version = newest[0]["name"]
            return f"{publisher}:{offer}:{sku}:{version}", self._arm.get(
                f"{path}/{version}", COMPUTE
            )
        except ResourceNotFoundError as error:
            raise ConfigurationError(
                f"There is no image {image} in {region}.",
                "Give `publisher:offer:sku:version` as `cloud-image`.",
            ) from error

    # --- creating

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, AzurePlacement)
        return self._creation.create(placement, machine, count)

    # --- watching and deleting

    def regions(self) -> Sequence[str]:
        return ()

    def settle(self, instances: Sequence[Instance]) -> None:
        """Nothing to do: no API returns the custom data of a machine."""

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        instances = [instance] if instance else self.find({NAME_TAG: name})
        deleted = [
            self._ending.delete(each.group, each.tags.get(LAUNCH_TAG, "")) for each in instances
        ]
        return any(deleted)

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:  # noqa: ARG002  one list has all regions
        """A group without a machine counts too: a machine may be on its way, and the rest has to
        be deleted as well."""
        with translated("looking for machines of cml-runner"):
            groups = [
                each
                for each in self._ending.groups()
                if tags.items() <= (each.get("tags") or {}).items()
            ]
            stopped = self._ending.stopped() if groups else frozenset()
            machines = [machine for group in groups for machine in self._machines(group)]
        return [
            replace(each, alive=each.alive and each.group.lower() not in stopped)
            for each in proven(machines)
        ]

    def _machines(self, group: Mapping[str, Any]) -> list[Instance]:
        machines = self._arm.get(
            f"{self._arm.group(group['name'])}/providers/Microsoft.Compute/virtualMachines", COMPUTE
        )["value"]
        empty = group_as_instance(group)
        launch = empty.tags.get(LAUNCH_TAG, "")
        return [
            replace(instance_of(description), proven=empty.proven and is_of(launch, description))
            for description in machines
        ] or [empty]

    def former(self, title: str, regions: Sequence[str]) -> None:
        """Always None: Azure does not list a machine that it has evicted."""

    def tidy(self, now: datetime) -> None:
        """Nothing to do: everything is deleted with its machine."""

    def look(self, instance: Instance) -> Instance:
        path = f"{self._arm.group(instance.group)}/providers"
        with translated(f"looking at {instance.name}"):
            try:
                now = self._arm.get(
                    f"{path}/Microsoft.Compute/virtualMachines/{instance.name}",
                    COMPUTE,
                    **{"$expand": "instanceView"},
                )
                public = self._arm.get(f"{path}/Microsoft.Network/publicIPAddresses", NETWORK)[
                    "value"
                ]
                addresses = [
                    address["properties"].get("ipAddress") for address in public
                ] or self._inside(path)
            except ResourceNotFoundError:
                return replace(instance, alive=False)
        return replace(
            instance_of(now, next(filter(None, addresses), "")),
            name=instance.name,
            login=instance.login,
        )

    def _inside(self, path: str) -> list[str]:
        cards = self._arm.get(f"{path}/Microsoft.Network/networkInterfaces", NETWORK)["value"]
        return [
            config["properties"].get("privateIPAddress")
            for card in cards
            for config in card["properties"]["ipConfigurations"]
        ]

    def cost(self, instance: Instance, now: datetime) -> None:
        """Always None: no price API is used for this cloud."""

    def console(self, instance: Instance) -> str:
        """Read from the address that Azure gives, which is valid for a while without
        credentials."""
        with translated(f"reading the console of {instance.name}"):
            try:
                diagnostics = self._arm.compute.virtual_machines.retrieve_boot_diagnostics_data(
                    instance.group, instance.name
                )
            except HttpResponseError as error:
                if error.status_code in (404, 409):  # not available yet
                    return ""
                raise
        try:
            answer = http.get(diagnostics.serial_console_log_blob_uri or "", timeout=30)
        except http.RequestException:
            return ""
        return answer.text if answer.ok else ""
