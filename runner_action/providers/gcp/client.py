"""The calls to Compute Engine, through google-cloud-compute: look-ups side by side, creations followed to the end of their operation."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
from google.auth.exceptions import TransportError
from google.cloud import compute_v1
from requests.exceptions import RequestException

from runner_action.errors import CapacityError, ConfigurationError, ProviderError, QuotaError
from runner_action.model import OWNER_TAG, Instance, Machine, Placement, Plan, ProviderName
from runner_action.providers.base import Created
from runner_action.providers.gcp import plan as words
from runner_action.providers.gcp import requests
from runner_action.providers.gcp.errors import CREDENTIALS, codes_of, is_passing, of_operation, translated
from runner_action.providers.gcp.ladder import Found, placements
from runner_action.providers.gcp.requests import GcpPlacement
from runner_action.request import CloudRequest
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
CREATE_SECONDS = 180.0
"""How long one creation may take, from the question to the end of its operation."""
RUNNING = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING", "PENDING")
CALL: dict[str, Any] = {"timeout": 30.0, "retry": None}
"""Repeating is ours, where it helps."""


class GcpProvider:
    """Compute Engine in one project: `clients(class)` builds an SDK's client."""

    def __init__(self, clients: Callable[[type[Any]], Any], project: str, clock: Clock) -> None:
        self._build, self.project, self._clock = clients, project, clock
        self._built: dict[type[Any], Any] = {}
        self._lock = threading.Lock()

    @property
    def user_data_limit(self) -> int:
        return words.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return words.plan(request)

    def _client(self, kind: type[Any]) -> Any:
        with self._lock:
            if kind not in self._built:
                self._built[kind] = self._build(kind)
            return self._built[kind]

    # --- looking things up

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """The image, the zones, and which of them have the types, asked side by side."""
        with translated("looking up image and zones"), ThreadPoolExecutor(3) as side_by_side:
            image = side_by_side.submit(self._image, plan)
            zones = side_by_side.submit(self._zones)
            offers = side_by_side.submit(self._offers, plan)
            found = Found(project=self.project, image=image.result(), zones=zones.result(), offered=offers.result())
        return placements(plan, request, found)

    def _zones(self) -> list[str]:
        return [zone.name for zone in self._client(compute_v1.ZonesClient).list(project=self.project, **CALL) if zone.status == "UP"]

    def _image(self, plan: Plan) -> Any:
        """Of a family the newest, else the very one. None is an error, never another system instead."""
        images = self._client(compute_v1.ImagesClient)
        project, _, name = plan.image.removeprefix("projects/").partition("/")
        try:
            if name.startswith("global/images/") and not name.startswith("global/images/family/"):
                return images.get(project=project, image=name.removeprefix("global/images/"), **CALL)
            return images.get_from_family(project=project, family=name.removeprefix("global/images/family/"), **CALL)
        except NotFound as error:
            raise ConfigurationError(f"There is no image {plan.image}.", "Give `project/family` as `cloud-image`, or leave it out.") from error

    def _offers(self, plan: Plan) -> frozenset[tuple[str, str]] | None:
        """(type, zone); None if the credentials may not ask. Types made to measure are in no list."""
        listed = sorted({name.partition("+")[0] for name in plan.instance_types if "custom" not in name})
        if not listed:
            return frozenset()
        request = compute_v1.AggregatedListMachineTypesRequest(project=self.project, filter=" OR ".join(f'(name = "{name}")' for name in listed))
        try:
            pages = self._client(compute_v1.MachineTypesClient).aggregated_list(request=request, **CALL)
            return frozenset((one.name, zone.removeprefix("zones/")) for zone, scope in pages for one in scope.machine_types)
        except GoogleAPICallError as error:
            if not CREDENTIALS & set(codes_of(error)):
                raise
            log.debug("%s", codes_of(error))
            return None

    # --- creating

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        """All side by side, each with a name and a request id of its own."""
        assert isinstance(placement, GcpPlacement)
        place = (placement.pools[0].zone, placement.pools[0].instance_type, str(placement.spot))
        if count == 1:
            return Created((self._create_one(placement, machine, machine.identity.name, place),))
        names = {f"{machine.identity.name}-{machine.identity.token(*place, str(number))[:8]}": (*place, str(number)) for number in range(count)}
        made: list[Instance] = []
        refusals: list[ProviderError] = []
        with ThreadPoolExecutor(min(count, 20)) as side_by_side:
            for future in [side_by_side.submit(self._create_one, placement, machine, name, parts) for name, parts in names.items()]:
                try:
                    made.append(future.result())
                except ProviderError as error:
                    refusals.append(error)
        worst = next((one for kind in (ProviderError, QuotaError, CapacityError) for one in refusals if _is(one, kind)), None)
        if worst and not made:
            raise worst
        return Created(tuple(made), worst, tuple(dict.fromkeys(map(str, refusals))))

    def _create_one(self, placement: GcpPlacement, machine: Machine, name: str, parts: Sequence[str]) -> Instance:
        """One machine, followed to the end of its operation. When that fails, whatever bears the name is deleted."""
        doing, zone = f"creating {placement}", placement.pools[0].zone
        request = compute_v1.InsertInstanceRequest(
            project=self.project,
            zone=zone,
            instance_resource=compute_v1.Instance(requests.instance(placement, machine, name)),
            request_id=str(uuid.UUID(hex=machine.identity.token(*parts))),
        )
        instances = self._client(compute_v1.InstancesClient)
        try:
            with translated(doing):
                if placement.with_ssh:
                    self._open_ssh(placement, name)
                try:
                    operation = wait_for(partial(self._once, instances.insert_unary, request), f"Google Cloud, while {doing}", clock=self._clock, timeout=60)
                    operation = self._finished(operation, zone, doing)
                except Conflict as error:
                    # An earlier try of this launch made it; anybody else's is not ours to use.
                    found = instances.get(project=self.project, zone=zone, instance=name, **CALL)
                    if dict(found.labels).get(f"{OWNER_TAG}-launch") != machine.identity.token():
                        raise ConfigurationError(f"There is a machine {name} in {zone} that this launch has not made.", "Choose another `name`.") from error
                else:
                    if operation.error.errors:
                        raise of_operation(operation, doing)
                    found = instances.get(project=self.project, zone=zone, instance=name, **CALL)
        except BaseException as error:
            if not isinstance(error, ConfigurationError) or "has not made" not in str(error):
                self._sweep(zone, name, placement.with_ssh)
            raise
        return replace(instance_of(found), name=machine.identity.name, login=placement.login)

    def _once(self, call: Callable[..., Any], request: Any) -> Any | None:
        """None: not now, ask again with the same request id."""
        try:
            return call(request=request, **CALL)
        except GoogleAPICallError as error:
            if is_passing(error):
                return None
            raise
        except (RequestException, TransportError):  # no connection, or no answer: the request id will tell
            return None

    def _finished(self, operation: Any, zone: str, doing: str) -> Any:
        """The operation when it is done. Polled by a client of ours: the SDK's own asks no other address than Google's public one."""
        request = compute_v1.GetZoneOperationRequest(project=self.project, zone=zone, operation=operation.name)

        def probe() -> Any | None:
            now = self._once(self._client(compute_v1.ZoneOperationsClient).get, request)
            return now if now is not None and now.status == compute_v1.Operation.Status.DONE else None

        if operation.status == compute_v1.Operation.Status.DONE:
            return operation
        return wait_for(probe, f"Google Cloud, while {doing}", clock=self._clock, timeout=CREATE_SECONDS, first=0.5, most=3)

    def _open_ssh(self, placement: GcpPlacement, name: str) -> None:
        rule = compute_v1.Firewall(requests.firewall(placement, name))
        try:
            self._client(compute_v1.FirewallsClient).insert_unary(project=self.project, firewall_resource=rule, **CALL)
        except Conflict:
            log.debug("The firewall rule %s-ssh is there already.", name)

    def _sweep(self, zone: str, name: str, with_ssh: bool) -> None:
        """After a failure: what may be there of that name is deleted; what is not there is as good."""
        try:
            self._delete(zone, name, with_ssh)
        except ProviderError as error:
            log.warning("Whether %s is left could not be told: %s", name, error)

    # --- the end, and what lies before it

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        found = [instance] if instance else self.find({f"{OWNER_TAG}:name": name})
        deleted = [self._delete(one.zone, one.id, with_ssh=True) for one in found]
        return any(deleted)

    def _delete(self, zone: str, name: str, with_ssh: bool) -> bool:
        """A deletion that was accepted cannot be taken back. False: there was nothing."""
        with translated(f"deleting {name}"):
            if with_ssh:
                self._close_ssh(zone, name)
            try:
                self._client(compute_v1.InstancesClient).delete_unary(project=self.project, zone=zone, instance=name, **CALL)
            except NotFound:
                return False
        return True

    def _close_ssh(self, zone: str, name: str) -> None:
        """The rule bears the machine's own name, which its id does not tell."""
        try:
            if name.isdigit():
                name = self._client(compute_v1.InstancesClient).get(project=self.project, zone=zone, instance=name, **CALL).name
            self._client(compute_v1.FirewallsClient).delete_unary(project=self.project, firewall=f"{name}-ssh", **CALL)
        except NotFound:
            return
        except GoogleAPICallError as error:
            # Without a key there was none, and older permissions may not ask.
            if not CREDENTIALS & set(codes_of(error)):
                raise

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:  # noqa: ARG002  one question for all of them
        wanted = requests.labels_of({OWNER_TAG: "runner", **tags})
        text = " AND ".join(f'(labels.{key} = "{value}")' for key, value in wanted.items())
        request = compute_v1.AggregatedListInstancesRequest(project=self.project, filter=text)
        with translated("looking for our instances"):
            pages = self._client(compute_v1.InstancesClient).aggregated_list(request=request, **CALL)
            return [instance_of(one) for _, scope in pages for one in scope.instances]

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                now = self._client(compute_v1.InstancesClient).get(project=self.project, zone=instance.zone, instance=instance.id, **CALL)
            except NotFound:
                return replace(instance, alive=False)
        return replace(instance_of(now), login=instance.login)

    def console(self, instance: Instance) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                answer = self._client(compute_v1.InstancesClient).get_serial_port_output(project=self.project, zone=instance.zone, instance=instance.id, **CALL)
            except NotFound:
                return ""
        return str(answer.contents)


def _is(error: ProviderError, kind: type[ProviderError]) -> bool:
    return not isinstance(error, QuotaError | CapacityError) if kind is ProviderError else isinstance(error, kind)


def instance_of(told: Any) -> Instance:
    labels, zone = dict(told.labels), told.zone.rpartition("/")[2]
    interfaces = list(told.network_interfaces)
    public = [config.nat_i_p for interface in interfaces for config in interface.access_configs if config.nat_i_p]
    return Instance(
        provider=ProviderName.GCP,
        id=str(told.id),
        name=labels.get(f"{OWNER_TAG}-name", told.name),
        region=zone.rpartition("-")[0],
        zone=zone,
        instance_type=told.machine_type.rpartition("/")[2],
        image=next((disk.initialize_params.source_image for disk in told.disks if disk.boot), ""),
        spot=told.scheduling.provisioning_model == "SPOT",
        address=(public or [interface.network_i_p for interface in interfaces] or [""])[0],
        launched=told.creation_timestamp,
        alive=told.status in RUNNING,
    )
