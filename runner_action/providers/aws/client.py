"""The calls to EC2, through boto3: as few as a launch needs, in parallel where they do not depend
on each other."""

from __future__ import annotations

import logging
import re
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
    RUN_TAG,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.providers.aws import groups, ladder
from runner_action.providers.aws import plan as planning
from runner_action.providers.aws.creation import Creation
from runner_action.providers.aws.errors import ABSENT, code_of, translated
from runner_action.providers.aws.instance import LIVING, instance_of
from runner_action.providers.aws.lookup import Lookup
from runner_action.providers.aws.ownership import OwnTemplates
from runner_action.providers.aws.price import cost
from runner_action.providers.aws.requests import AwsPlacement
from runner_action.providers.base import Created, proven
from runner_action.request import CloudRequest
from runner_action.waiting import Clock, wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

log = logging.getLogger(__name__)
LOOKUPS = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30
)
# EC2 answers "no capacity" with status 500, which the SDK would retry: `Creation` retries what is
# worth it.
HOME = "us-east-1"
"""Where the list of regions is read: every account has this one.
https://docs.aws.amazon.com/general/latest/gr/rande-manage.html"""
WILD, ESCAPED = re.compile(r"[*?\\]"), r"\\\g<0>"
"""What stands for other text in the value of a filter, and how it stands for itself.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html"""
TERMINATE_SECONDS = 20.0
"""How long a new instance may be unknown.
https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html"""
CREATES = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=40)


class AwsProvider:
    """EC2 in some regions. `clients(service, region, config)` builds a client of the SDK."""

    name, regional = ProviderName.AWS, True

    def __init__(self, clients: Callable[[str, str, Config], Any], clock: Clock) -> None:
        self._build = clients
        self._clock = clock
        self._built: dict[tuple[str, str, bool], Any] = {}
        self._lock = threading.Lock()
        self._own_groups: dict[tuple[str, bool], str] = {}  # (VPC, with SSH) -> id
        self._fleets = True  # until EC2 refuses one for lack of permission
        self._templates = OwnTemplates(clock)

    @classmethod
    def from_environment(cls, clock: Clock) -> AwsProvider:
        """Credentials as the SDK finds them: variables, profile, web identity, the machine's own
        role."""
        session = boto3.session.Session()

        def client(service: str, region: str, config: Config) -> Any:
            return session.client(  # type: ignore[call-overload]
                service, region_name=region, config=config
            )

        return cls(client, clock)

    @property
    def user_data_limit(self) -> int:
        return planning.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return planning.plan(request)

    def deletion(self, request: CloudRequest) -> None:
        """None: instances are created so that a power-off terminates them."""

    def _client(self, region: str, service: str = "ec2", *, creates: bool = False) -> Any:
        # A boto3 session is not thread-safe while it builds a client; a client is.
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
        """Looks up all regions in parallel. A region that cannot serve is logged and left out, as
        long as another can."""
        regions = list(dict.fromkeys(place.region for place in plan.places))
        with ThreadPoolExecutor(len(regions)) as side_by_side:
            lookups = {
                region: side_by_side.submit(self._look_up, region, plan, request)
                for region in regions
            }
        by_region = {
            region: placements
            for region, future in lookups.items()
            if (placements := _result(future, last=False)) is not None
        }
        if not by_region:
            for future in lookups.values():
                _result(future, last=True)
        everywhere = chain.from_iterable(by_region.values())
        return sorted(everywhere, key=lambda placement: plan.spots.index(placement.spot))

    def _look_up(self, region: str, plan: Plan, request: CloudRequest) -> list[AwsPlacement]:
        lookup = Lookup(
            region,
            self._ec2(region),
            lambda: cast("SSMClient", self._client(region, "ssm")),
            plan,
            request,
        )
        facts, own_groups = lookup.run(self._clock.now())
        self._own_groups.update(
            {(vpc, request.ssh_public_key is not None): group for vpc, group in own_groups.items()}
        )
        return ladder.placements(plan, request, facts)

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
                # The policy may be an older one that allows RunInstances only. If that is refused
                # too, its error is the one to raise.
                self._fleets = False
                log.warning("%s Asking zone by zone instead.", error)
        return creation.pool_by_pool(count)

    def _decode(self, region: str, blob: str) -> str:
        """Decodes the reason of a refusal; empty if that is not permitted either."""
        sts = cast("STSClient", self._client(region, "sts"))
        try:
            return sts.decode_authorization_message(EncodedMessage=blob)["DecodedMessage"]
        except (ClientError, BotoCoreError):
            return ""

    def _own_group(self, placement: AwsPlacement) -> str:
        """The id of our security group in the VPC, created if missing. One thread creates it;
        another launch may still win the race."""
        key, client = (placement.vpc_id, placement.with_ssh), self._ec2(placement.region)
        with self._lock, translated("creating the security group"):
            if key not in self._own_groups:
                self._own_groups[key] = groups.create(client, *key, self._clock)
            return self._own_groups[key]

    # --- watching and deleting

    def regions(self) -> Sequence[str]:
        """The regions that are enabled for the account."""
        with translated("listing the regions of the account"):
            return [
                region["RegionName"] for region in self._ec2(HOME).describe_regions()["Regions"]
            ]

    def settle(self, instances: Sequence[Instance]) -> None:
        """Nothing to do: EC2 changes the user data of stopped instances only."""

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        instances = [instance] if instance else self.find({NAME_TAG: name})
        for each in instances:
            self._terminate(each)
        return bool(instances)

    def _terminate(self, instance: Instance) -> None:
        """TerminateInstances cannot be undone, so the state in its answer is the confirmation.

        EC2 knows an instance for an hour after its end, so one that it does not know is new, and
        may be running. Raises TimedOut if that stays so.
        """
        state = wait_for(
            lambda: self._terminated(instance),
            f"EC2 to know {instance.id}, which it has created",
            clock=self._clock,
            timeout=TERMINATE_SECONDS,
        )
        if state in LIVING:
            raise ConfigurationError(
                f"EC2 still shows {instance.id} as {state} after TerminateInstances.",
                "Terminate it in the EC2 console.",
            )

    def _terminated(self, instance: Instance) -> str | None:
        """The state after TerminateInstances; None if EC2 does not know the instance yet."""
        with translated(f"terminating {instance.id}"):
            try:
                answer = self._ec2(instance.region).terminate_instances(InstanceIds=[instance.id])
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return None
                raise
        return answer["TerminatingInstances"][0]["CurrentState"]["Name"]

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        criteria = {f"tag:{key}": [value] for key, value in tags.items()}
        searched = {
            *regions,
            *(region for service, region, _ in list(self._built) if service == "ec2"),
        }
        return self._listed({**criteria, "instance-state-name": list(LIVING)}, sorted(searched))

    def former(self, title: str, regions: Sequence[str]) -> Sequence[Instance]:
        """EC2 lists a terminated instance for about an hour, mostly with its tags.
        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-termination-works.html
        """
        return self._listed({f"tag:{RUN_TAG}": [f"{WILD.sub(ESCAPED, title)}*"]}, regions)

    def _listed(self, criteria: Mapping[str, list[str]], regions: Sequence[str]) -> list[Instance]:
        """Our instances that meet all criteria, which are those of DescribeInstances."""
        chosen = {f"tag:{OWNER_TAG}": ["runner"], **criteria}
        filters: Any = [{"Name": key, "Values": values} for key, values in chosen.items()]

        def search(region: str) -> list[Instance]:
            with translated(f"looking for instances of cml-runner in {region}"):
                pages = (
                    self._ec2(region).get_paginator("describe_instances").paginate(Filters=filters)
                )
                groups = [group for page in pages for group in page["Reservations"]]
                listed = [instance for group in groups for instance in group["Instances"]]
                templates = self._templates.among(self._ec2(region), listed)
                return [instance_of(instance, region, templates=templates) for instance in listed]

        with ThreadPoolExecutor(8) as side_by_side:
            return proven(
                instance for listed in side_by_side.map(search, regions) for instance in listed
            )

    def tidy(self, now: datetime) -> None:
        """Nothing to do: everything is deleted with its instance."""

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                answer = self._ec2(instance.region).describe_instances(InstanceIds=[instance.id])
            except ClientError as error:
                # EC2 is eventually consistent: the instance may not be known everywhere yet.
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
        """Of a spot machine, by its price history; None for others: no price API is used for
        on-demand machines."""
        if not (instance.spot and instance.launched):
            return None
        since: Any = datetime.fromisoformat(instance.launched)
        pool: Any = {
            "InstanceTypes": [instance.instance_type],
            "AvailabilityZone": instance.zone,
            "ProductDescriptions": ["Linux/UNIX"],
        }
        with translated("reading the history of spot prices"):
            pages = (
                self._ec2(instance.region)
                .get_paginator("describe_spot_price_history")
                .paginate(**pool, StartTime=since, EndTime=now)
            )
            return cost([price for page in pages for price in page["SpotPriceHistory"]], since, now)

    def console(self, instance: Instance) -> str:
        """After its end, what EC2 kept of it then.
        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html"""
        return self._console(instance, latest=True) or (
            "" if instance.alive else self._console(instance, latest=False)
        )

    def _console(self, instance: Instance, *, latest: bool) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                return (
                    self._ec2(instance.region)
                    .get_console_output(InstanceId=instance.id, Latest=latest)
                    .get("Output", "")
                )
            except ClientError as error:
                # Only Nitro types have the latest output, and not in their first seconds.
                if code_of(error) in {
                    "UnsupportedOperation",
                    "Unsupported",
                    "IncorrectInstanceState",
                    *ABSENT,
                }:
                    return ""
                raise


def _result(future: Future[list[AwsPlacement]], *, last: bool) -> list[AwsPlacement] | None:
    """A region's placements; None if it cannot serve, which is logged. With `last`, as no other
    region can, its error is raised; errors of the credentials always are."""
    try:
        return future.result()
    except CredentialsError:
        raise
    except ProviderError as error:
        if last:
            raise
        log.warning("%s %s", error, error.hint)
        return None
