"""Compute Engine as a provider, through google-cloud-compute: look-ups in parallel, and creations
followed to the end of their operations."""

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
from runner_action.providers.gcp import plan as planning
from runner_action.providers.gcp import requests, sdk
from runner_action.providers.gcp.compute import SAFE, Compute
from runner_action.providers.gcp.creation import Creation
from runner_action.providers.gcp.ending import Ending
from runner_action.providers.gcp.errors import CREDENTIALS, codes_of, translated
from runner_action.providers.gcp.instance import instance_of
from runner_action.providers.gcp.ladder import Facts, names_of, placements
from runner_action.providers.gcp.requests import GcpPlacement
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
CANNOT_DELETE = (
    "The machine will not be able to delete itself: when it is done it stops, and its disk stays"
    " until the next launch of this repository deletes it. Give it a service account that may"
    " delete it, with the scope compute-rw, as `cloud-permission-set` (docs/gcp.md)."
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
        return planning.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return planning.plan(request)

    def deletion(self, request: CloudRequest) -> Deletion | None:
        """As its service account, if that has the scope; else with the launcher's key, but not if
        jobs could read it from the metadata service, which an account opens to them."""
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
        """Looks up the image, the zones, and which of them have types and accelerators, in
        parallel."""
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
            facts = Facts(
                project=self._compute.project,
                image=image.result(),
                zones=zones.result(),
                offered=offered,
            )
        return placements(plan, request, facts)

    def _zones(self) -> list[str]:
        return [
            zone.name
            for zone in self._compute.client(sdk.ZonesClient).list(
                project=self._compute.project, **SAFE
            )
            if zone.status == "UP"
        ]

    def _image(self, plan: Plan) -> Any:
        """The newest image of a family, or exactly the named one. Raises ConfigurationError if
        there is none; never falls back to another system."""
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
        """The zones that list each name; empty if the credentials may not ask."""
        if not names:
            return {}
        text = " OR ".join(f'(name = "{name}")' for name in sorted(names))
        try:
            pages = self._compute.client(client).aggregated_list(
                request=request(project=self._compute.project, filter=text), **SAFE
            )
            entries = [
                (entry.name, zone.removeprefix("zones/"))
                for zone, scope in pages
                for entry in getattr(scope, part)
            ]
        except GoogleAPICallError as error:
            if not CREDENTIALS & set(codes_of(error)):
                raise
            log.debug("%s", codes_of(error))
            return {}
        return {name: frozenset(zone for entry, zone in entries if entry == name) for name in names}

    # --- creating

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, GcpPlacement)
        return self._creation.create(placement, machine, count)

    # --- watching and deleting

    def regions(self) -> Sequence[str]:
        return ()

    def settle(self, instances: Sequence[Instance]) -> None:
        """Nothing to do: the user data stays in the metadata of the instance."""

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        instances = [instance] if instance else self.find({NAME_TAG: name})
        deleted = [self._ending.delete(each.zone, each.id, with_rule=True) for each in instances]
        return any(deleted)

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:  # noqa: ARG002  one list has all
        labels = requests.labels_of({OWNER_TAG: "runner", **tags})
        text = " AND ".join(f'(labels.{key} = "{value}")' for key, value in labels.items())
        request = sdk.types.AggregatedListInstancesRequest(
            project=self._compute.project, filter=text
        )
        with translated("looking for instances of cml-runner"):
            pages = self._compute.client(sdk.InstancesClient).aggregated_list(
                request=request, **SAFE
            )
            instances = [instance_of(each) for _, scope in pages for each in scope.instances]
        described = {tag: value for tag, value in tags.items() if tag in requests.NO_LABELS}
        return proven(each for each in instances if described.items() <= each.tags.items())

    def former(self, title: str, regions: Sequence[str]) -> None:
        """Always None: Google does not list a machine that it has preempted."""

    def tidy(self, now: datetime) -> None:
        self._ending.close_rules(now)

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                description = self._compute.client(sdk.InstancesClient).get(
                    project=self._compute.project, zone=instance.zone, instance=instance.id, **SAFE
                )
            except NotFound:
                return replace(instance, alive=False)
        return replace(instance_of(description), login=instance.login)

    def cost(self, instance: Instance, now: datetime) -> None:
        """Always None: no price API is used for this cloud."""

    def console(self, instance: Instance) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                answer = self._compute.client(sdk.InstancesClient).get_serial_port_output(
                    project=self._compute.project, zone=instance.zone, instance=instance.id, **SAFE
                )
            except NotFound:
                return ""
        return str(answer.contents)
