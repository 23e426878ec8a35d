"""The calls to EC2, through boto3: as few as a launch needs, and side by side where they need
not wait for each other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runner_action.errors import ConfigurationError, CredentialsError, ProviderError
from runner_action.model import (
    NAME_TAG,
    OWNER_TAG,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.providers.aws import groups, ladder
from runner_action.providers.aws import plan as words
from runner_action.providers.aws.creation import Creation
from runner_action.providers.aws.errors import ABSENT, code_of, translated
from runner_action.providers.aws.instance import LIVING, instance_of
from runner_action.providers.aws.lookup import Lookup
from runner_action.providers.aws.ownership import OwnTemplates
from runner_action.providers.aws.price import cost
from runner_action.providers.aws.requests import AwsPlacement
from runner_action.providers.base import Created, proven
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

log = logging.getLogger(__name__)
LOOKUPS = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30
)
# EC2 says "no capacity" with status 500, which the SDK would try again: creations are repeated by
# us, where that helps.
HOME = "us-east-1"
"""Who is asked for the regions: every account has it.
https://docs.aws.amazon.com/general/latest/gr/rande-manage.html"""
CREATES = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=40)


class AwsProvider:
    """EC2 in some regions: `clients(service, region, config)` builds an SDK's client."""

    name, regional = ProviderName.AWS, True

    def __init__(self, clients: Callable[[str, str, Config], Any], clock: Clock) -> None:
        self._build = clients
        self._clock = clock
        self._built: dict[tuple[str, str, bool], Any] = {}
        self._lock = threading.Lock()
        self._own_groups: dict[tuple[str, bool], str] = {}  # (VPC, with SSH) -> id
        self._fleets = True  # until the credentials turn out not to allow it
        self._templates = OwnTemplates()

    @classmethod
    def from_environment(cls, clock: Clock) -> AwsProvider:
        """Credentials as the SDK finds them: variables, profile, web identity, the machine's own
        role."""
        session = boto3.session.Session()
        return cls(
            lambda service, region, config: session.client(  # type: ignore[call-overload]
                service, region_name=region, config=config
            ),
            clock,
        )

    @property
    def user_data_limit(self) -> int:
        return words.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return words.plan(request)

    def deletion(self, request: CloudRequest) -> None:
        """Instances are made to be terminated by their power-off."""

    def _client(self, region: str, service: str = "ec2", *, creates: bool = False) -> Any:
        # A boto3 session is not safe to share while it builds a client; a client is.
        with self._lock:
            key = (service, region, creates)
            if key not in self._built:
                with translated(f"connecting to {service.upper()}"):
                    self._built[key] = self._build(service, region, CREATES if creates else LOOKUPS)
            return self._built[key]

    def _ec2(self, region: str, *, creates: bool = False) -> EC2Client:
        return cast("EC2Client", self._client(region, creates=creates))

    # --- looking things up

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """All regions side by side. One that cannot serve is told and left out, as long as
        another can."""
        regions = list(dict.fromkeys(place.region for place in plan.places))
        with ThreadPoolExecutor(len(regions)) as side_by_side:
            asked = {
                region: side_by_side.submit(self._look_up, region, plan, request)
                for region in regions
            }
        found = {
            region: placements
            for region, future in asked.items()
            if (placements := _result(future, last=False)) is not None
        }
        if not found:
            for future in asked.values():
                _result(future, last=True)
        everywhere = chain.from_iterable(found.values())
        return sorted(everywhere, key=lambda one: plan.spots.index(one.spot))

    def _look_up(self, region: str, plan: Plan, request: CloudRequest) -> list[AwsPlacement]:
        lookup = Lookup(
            region,
            self._ec2(region),
            lambda: cast("SSMClient", self._client(region, "ssm")),
            plan,
            request,
        )
        found, own = lookup.run(self._clock.now())
        self._own_groups.update(
            {(vpc, request.ssh_public_key is not None): group for vpc, group in own.items()}
        )
        return ladder.placements(plan, request, found)

    # --- creating

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, AwsPlacement)
        group = placement.security_group or self._own_group(placement)
        creation = Creation(
            self._ec2(placement.region, creates=True),
            placement,
            machine,
            group,
            self._clock,
            lambda: self.find(machine.identity.marks),
        )
        creation.decode = lambda blob: self._decode(placement.region, blob)
        if len(placement.pools) > 1 and self._fleets:
            try:
                return creation.fleet(count)
            except CredentialsError as error:
                # The policy may be an older one, with no more than RunInstances. If that is refused
                # too, its words count.
                self._fleets = False
                log.warning("%s Asking zone by zone instead.", error)
        return creation.pool_by_pool(count)

    def _decode(self, region: str, blob: str) -> str:
        """The encoded reason of a missing permission, which is worth reading; empty where that
        is not permitted either."""
        sts = cast("STSClient", self._client(region, "sts"))
        try:
            return sts.decode_authorization_message(EncodedMessage=blob)["DecodedMessage"]
        except (ClientError, BotoCoreError):
            return ""

    def _own_group(self, placement: AwsPlacement) -> str:
        """Our security group of the VPC, made when it is missing. One maker at a time; another
        launch may still win the race."""
        key, client = (placement.vpc_id, placement.with_ssh), self._ec2(placement.region)
        with self._lock, translated("creating the security group"):
            if key not in self._own_groups:
                self._own_groups[key] = groups.made(client, *key, self._clock)
            return self._own_groups[key]

    # --- the end, and what lies before it

    def regions(self) -> Sequence[str]:
        """Those that are enabled for the account."""
        with translated("listing the regions of the account"):
            return [one["RegionName"] for one in self._ec2(HOME).describe_regions()["Regions"]]

    def settle(self, instances: Sequence[Instance]) -> None:
        """Nothing can go: the user data is the instance's."""

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        found = [instance] if instance else self.find({NAME_TAG: name})
        ended = [self._terminate(one) for one in found]
        return any(ended)

    def _terminate(self, instance: Instance) -> bool:
        """TerminateInstances cannot be taken back: the state it answers is the confirmation.
        False: there was nothing."""
        with translated(f"ending {instance.id}"):
            try:
                answer = self._ec2(instance.region).terminate_instances(InstanceIds=[instance.id])
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return False
                raise
        state = answer["TerminatingInstances"][0]["CurrentState"]["Name"]
        if state in LIVING:
            raise ConfigurationError(
                f"EC2 still shows {instance.id} as {state} after TerminateInstances.",
                "End it at the EC2 console.",
            )
        return True

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        wanted = {
            f"tag:{OWNER_TAG}": ["runner"],
            **{f"tag:{key}": [value] for key, value in tags.items()},
            "instance-state-name": list(LIVING),
        }
        filters: Any = [{"Name": key, "Values": values} for key, values in wanted.items()]
        where = sorted(
            {*regions, *(region for service, region, _ in list(self._built) if service == "ec2")}
        )

        def ask(region: str) -> list[Instance]:
            with translated(f"looking for our instances in {region}"):
                pages = (
                    self._ec2(region).get_paginator("describe_instances").paginate(Filters=filters)
                )
                groups = [group for page in pages for group in page["Reservations"]]
                found = [one for group in groups for one in group["Instances"]]
                templates = self._templates.among(self._ec2(region), found)
                return [instance_of(one, region, templates=templates) for one in found]

        with ThreadPoolExecutor(8) as side_by_side:
            return proven(one for found in side_by_side.map(ask, where) for one in found)

    def tidy(self, now: datetime) -> None:
        """All goes with a machine."""

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                answer = self._ec2(instance.region).describe_instances(InstanceIds=[instance.id])
            except ClientError as error:
                # Not yet known everywhere: EC2 is eventually consistent.
                if code_of(error) in ABSENT:
                    return instance
                raise
        return instance_of(
            answer["Reservations"][0]["Instances"][0],
            instance.region,
            instance.name,
            instance.login,
        )

    def cost(self, instance: Instance, now: datetime) -> float | None:
        """Of a spot machine; EC2 tells no other prices."""
        if not (instance.spot and instance.launched):
            return None
        since: Any = datetime.fromisoformat(instance.launched)
        asked: Any = {
            "InstanceTypes": [instance.instance_type],
            "AvailabilityZone": instance.zone,
            "ProductDescriptions": ["Linux/UNIX"],
        }
        with translated("reading the history of spot prices"):
            pages = (
                self._ec2(instance.region)
                .get_paginator("describe_spot_price_history")
                .paginate(**asked, StartTime=since, EndTime=now)
            )
            return cost([one for page in pages for one in page["SpotPriceHistory"]], since, now)

    def console(self, instance: Instance) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                return (
                    self._ec2(instance.region)
                    .get_console_output(InstanceId=instance.id, Latest=True)
                    .get("Output", "")
                )
            except ClientError as error:
                # Only Nitro types give the latest output, and none in its first seconds.
                if code_of(error) in {
                    "UnsupportedOperation",
                    "Unsupported",
                    "IncorrectInstanceState",
                    *ABSENT,
                }:
                    return ""
                raise


def _result(future: Future[list[AwsPlacement]], *, last: bool) -> list[AwsPlacement] | None:
    """A region's placements; None if it cannot serve and is not the last hope. What is wrong
    everywhere is raised at once."""
    try:
        return future.result()
    except CredentialsError:
        raise
    except ProviderError as error:
        if last:
            raise
        log.warning("%s %s", error, error.hint)
        return None
