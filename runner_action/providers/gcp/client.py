"""Compute Engine as a provider, through google-cloud-compute: look-ups side by side, creations
followed to their end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound

from runner_action.errors import ConfigurationError
from runner_action.model import (
    NAME_TAG,
    OWNER_TAG,
    Deletion,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.providers.base import Created, proven
from runner_action.providers.gcp import plan as words
from runner_action.providers.gcp import requests, sdk
from runner_action.providers.gcp.compute import SAFE, Compute
from runner_action.providers.gcp.creation import Creation
from runner_action.providers.gcp.ending import Ending
from runner_action.providers.gcp.errors import CREDENTIALS, codes_of, translated
from runner_action.providers.gcp.instance import instance_of
from runner_action.providers.gcp.ladder import Found, names_of, placements
from runner_action.providers.gcp.requests import GcpPlacement
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
CANNOT_DELETE = (
    "The machine will not be able to delete itself: when it is done it stops, and its disk stays"
    " until the next launch of this repository deletes it. Give it a service account that may, with"
    " the scope compute-rw, as `cloud-permission-set` (docs/gcp.md)."
)


class GcpProvider:
    """Compute Engine in one project."""

    name, regional = ProviderName.GCP, False

    def __init__(self, compute: Compute, clock: Clock) -> None:
        self._compute = compute
        self._ending = Ending(compute, clock)
        self._creation = Creation(compute, self._ending, clock)

    @property
    def user_data_limit(self) -> int:
        return words.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return words.plan(request)

    def deletion(self, request: CloudRequest) -> Deletion | None:
        """As its own account if that has the scope. A key only where no job can ask the metadata
        service for it: with an account jobs may."""
        facts = {
            "api": self._compute.api,
            "rule": requests.opens_port(request, self._compute.project),
        }
        if requests.may_delete(request.permission_set):
            return Deletion(facts)
        key = self._compute.account.key
        if key and not request.permission_set:
            return Deletion(facts, key)
        log.warning("%s", CANNOT_DELETE)
        return None

    # --- looking things up

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """The image, the zones, and which of them have types and accelerators, asked side by
        side."""
        named = [names_of(kind) for kind in plan.instance_types]
        machines, cards = (
            {names[0] for names in named},
            {name for names in named for name in names[1:]},
        )
        with translated("looking up image and zones"), ThreadPoolExecutor(4) as side_by_side:
            image = side_by_side.submit(self._image, plan)
            zones = side_by_side.submit(self._zones)
            types = side_by_side.submit(
                self._listed,
                sdk.MachineTypesClient,
                sdk.types.AggregatedListMachineTypesRequest,
                "machine_types",
                machines,
            )
            gpus = side_by_side.submit(
                self._listed,
                sdk.AcceleratorTypesClient,
                sdk.types.AggregatedListAcceleratorTypesRequest,
                "accelerator_types",
                cards,
            )
            offered = types.result() | gpus.result()
            found = Found(
                project=self._compute.project,
                image=image.result(),
                zones=zones.result(),
                offered=offered,
            )
        return placements(plan, request, found)

    def _zones(self) -> list[str]:
        return [
            zone.name
            for zone in self._compute.client(sdk.ZonesClient).list(
                project=self._compute.project, **SAFE
            )
            if zone.status == "UP"
        ]

    def _image(self, plan: Plan) -> Any:
        """Of a family the newest, else the very one. None is an error, never another system
        instead."""
        images = self._compute.client(sdk.ImagesClient)
        project, _, name = plan.image.removeprefix("projects/").partition("/")
        try:
            if name.startswith("global/images/") and not name.startswith("global/images/family/"):
                return images.get(
                    project=project, image=name.removeprefix("global/images/"), **SAFE
                )
            return images.get_from_family(
                project=project, family=name.removeprefix("global/images/family/"), **SAFE
            )
        except NotFound as error:
            raise ConfigurationError(
                f"There is no image {plan.image}.",
                "Give `project/family` as `cloud-image`, or leave it out.",
            ) from error

    def _listed(
        self, client: type[Any], request: type[Any], part: str, names: Set[str]
    ) -> dict[str, frozenset[str]]:
        """Name -> zones that list it; nothing if the credentials may not ask."""
        if not names:
            return {}
        text = " OR ".join(f'(name = "{name}")' for name in sorted(names))
        try:
            pages = self._compute.client(client).aggregated_list(
                request=request(project=self._compute.project, filter=text), **SAFE
            )
            found = [
                (one.name, zone.removeprefix("zones/"))
                for zone, scope in pages
                for one in getattr(scope, part)
            ]
        except GoogleAPICallError as error:
            if not CREDENTIALS & set(codes_of(error)):
                raise
            log.debug("%s", codes_of(error))
            return {}
        return {name: frozenset(zone for one, zone in found if one == name) for name in names}

    # --- creating

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, GcpPlacement)
        return self._creation.create(placement, machine, count)

    # --- the end, and what lies before it

    def regions(self) -> Sequence[str]:
        return ()

    def settle(self, instances: Sequence[Instance]) -> None:
        """Nothing can go: the user data is the instance's."""

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        found = [instance] if instance else self.find({NAME_TAG: name})
        deleted = [self._ending.delete(one.zone, one.id, with_rule=True) for one in found]
        return any(deleted)

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:  # noqa: ARG002  one question for all of them
        wanted = requests.labels_of({OWNER_TAG: "runner", **tags})
        text = " AND ".join(f'(labels.{key} = "{value}")' for key, value in wanted.items())
        request = sdk.types.AggregatedListInstancesRequest(
            project=self._compute.project, filter=text
        )
        with translated("looking for our instances"):
            pages = self._compute.client(sdk.InstancesClient).aggregated_list(
                request=request, **SAFE
            )
            found = [instance_of(one) for _, scope in pages for one in scope.instances]
        described = {tag: value for tag, value in tags.items() if tag in requests.NO_LABELS}
        return proven(one for one in found if described.items() <= one.tags.items())

    def tidy(self, now: datetime) -> None:
        self._ending.close_rules(now)

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                now = self._compute.client(sdk.InstancesClient).get(
                    project=self._compute.project, zone=instance.zone, instance=instance.id, **SAFE
                )
            except NotFound:
                return replace(instance, alive=False)
        return replace(instance_of(now), login=instance.login)

    def cost(self, instance: Instance, now: datetime) -> None:
        """Not told."""

    def console(self, instance: Instance) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                answer = self._compute.client(sdk.InstancesClient).get_serial_port_output(
                    project=self._compute.project, zone=instance.zone, instance=instance.id, **SAFE
                )
            except NotFound:
                return ""
        return str(answer.contents)
