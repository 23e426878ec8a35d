"""The calls to EC2, through boto3: as few as a launch needs, and side by side where they need not wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from runner_action.errors import ConfigurationError
from runner_action.model import OWNER_TAG, CloudRequest, Instance, Machine, Placement, Plan, ProviderName
from runner_action.providers.aws import plan as words
from runner_action.providers.aws.errors import ABSENT, PASSING, THROTTLING, code_of, translate, translated
from runner_action.providers.aws.plan import AwsPlacement
from runner_action.waiting import Clock, wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

LOOKUPS = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30)
# EC2 says "no capacity" with status 500, which the SDK would try again: RunInstances is repeated by us, where that helps.
CREATES = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60)
ANOTHER = "another request had this client token"
LIVING = ("pending", "running", "stopping", "stopped")
CREATE_SECONDS = 60.0
"""How long throttling and passing faults are waited out at one placement."""


class AwsProvider:
    """EC2 in one region at a time: `clients(region, config)` builds the SDK's client."""

    def __init__(self, clients: Callable[[str, Config], EC2Client], clock: Clock) -> None:
        self._build, self._clock = clients, clock
        self._built: dict[tuple[str, bool], EC2Client] = {}
        self._lock = threading.Lock()
        self._own_groups: dict[tuple[str, bool], str] = {}  # (VPC, with SSH) -> id

    @classmethod
    def from_environment(cls, clock: Clock) -> AwsProvider:
        """Credentials as the SDK finds them: variables, profile, web identity, the machine's own role."""
        session = boto3.session.Session()
        return cls(lambda region, config: session.client("ec2", region_name=region, config=config), clock)

    @property
    def user_data_limit(self) -> int:
        return words.USER_DATA_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return words.plan(request)

    def _client(self, region: str, *, creates: bool = False) -> EC2Client:
        # A boto3 session is not safe to share while it builds a client; a client is.
        with self._lock:
            if (region, creates) not in self._built:
                with translated("connecting to EC2"):
                    self._built[region, creates] = self._build(region, CREATES if creates else LOOKUPS)
            return self._built[region, creates]

    # --- looking things up

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """Image, subnets and our security groups, asked side by side; a placement for every subnet."""
        client = self._client(plan.region)
        with translated("looking up image and network"), ThreadPoolExecutor(3) as side_by_side:
            images = side_by_side.submit(client.describe_images, **words.image_query(plan.image, plan.architecture))
            subnets = side_by_side.submit(client.describe_subnets, **words.subnet_query(plan, request.aws_subnet))
            groups = None if request.aws_security_group else side_by_side.submit(self._find_groups, client, request.ssh_public_key is not None)
            image = _newest(images.result()["Images"], plan)
            usable = _usable(subnets.result()["Subnets"], plan, request.aws_subnet)
            self._own_groups.update(groups.result() if groups else {})
        return [words.placement(plan, request, image, subnet) for subnet in usable]

    def _find_groups(self, client: EC2Client, with_ssh: bool) -> dict[tuple[str, bool], str]:
        """Our groups by VPC. One that somebody has opened further is refused, not silently used."""
        name = words.group_name(with_ssh)
        wanted = [{"Name": f"tag:{OWNER_TAG}", "Values": ["security-group"]}, {"Name": "group-name", "Values": [name]}]
        found = client.describe_security_groups(Filters=wanted)["SecurityGroups"]  # type: ignore[arg-type]
        for group in found:
            ports = {(rule.get("FromPort"), rule.get("ToPort")) for rule in group["IpPermissions"]}
            if ports - ({(22, 22)} if with_ssh else set()):
                text = f"The security group {group['GroupId']} ({name}) has inbound rules that are not ours."
                raise ConfigurationError(text, "Remove the rules, or give a group of your own as `cloud-aws-security-group`.")
        return {(group["VpcId"], with_ssh): group["GroupId"] for group in found}

    # --- creating

    def create(self, placement: Placement, machine: Machine) -> Instance:
        assert isinstance(placement, AwsPlacement)
        groups = placement.security_groups or (self._own_group(placement),)
        place = (placement.subnet_id, placement.instance_type, str(placement.spot))
        for again in ("", "again"):
            request = words.run_instances(placement, machine, groups, machine.identity.token(*place, again))
            run = partial(self._run, placement.region, request, f"creating {placement}")
            made = wait_for(run, f"EC2 to accept {placement}", clock=self._clock, timeout=CREATE_SECONDS)
            if made == ANOTHER:
                # An earlier try of this launch got through, with another registration token in its user data.
                before = self.find(machine.identity.marks)
                if before:
                    return before[0]
                continue
            instance = _instance(made, placement.region, machine.identity.name)
            # A token remembers an instance that has ended meanwhile; then, once, a fresh one is wanted.
            if instance.alive:
                return instance
        text = f"EC2 accepted {placement}, but the instance has ended already."
        raise ConfigurationError(text, "Look at its state reason in the EC2 console.")

    def _run(self, region: str, request: Mapping[str, Any], doing: str) -> Any | None:
        """None: not now, ask again with the same client token."""
        try:
            return self._client(region, creates=True).run_instances(**request)["Instances"][0]
        except ClientError as error:
            if code_of(error) == "IdempotentParameterMismatch":
                return ANOTHER
            if code_of(error) in THROTTLING | PASSING:
                return None
            raise translate(error, doing) from error
        except HTTPClientError:  # no connection, or no answer: whether it got through the token will tell
            return None
        except BotoCoreError as error:
            raise translate(error, doing) from error

    def _own_group(self, placement: AwsPlacement) -> str:
        """Our security group of the VPC, made when it is missing. One maker at a time; another launch may still win the race."""
        key = (placement.vpc_id, placement.with_ssh)
        client = self._client(placement.region)
        with self._lock, translated("creating the security group"):
            if key not in self._own_groups:
                try:
                    self._own_groups[key] = client.create_security_group(**words.security_group(*key))["GroupId"]
                    if placement.with_ssh:
                        client.authorize_security_group_ingress(GroupId=self._own_groups[key], **words.SSH_IN)
                except ClientError as error:
                    if code_of(error) != "InvalidGroup.Duplicate":
                        raise
                    self._own_groups.update(self._find_groups(client, placement.with_ssh))
            if key not in self._own_groups:
                text = f"A security group named {words.group_name(placement.with_ssh)} without our tag is in {placement.vpc_id}."
                raise ConfigurationError(text, "Rename it, or give one as `cloud-aws-security-group`.")
            return self._own_groups[key]

    # --- the end, and what lies before it

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        found = [instance] if instance else self.find({f"{OWNER_TAG}:name": name})
        ended = [self._terminate(one) for one in found]
        return any(ended)

    def _terminate(self, instance: Instance) -> bool:
        """TerminateInstances cannot be taken back: the state it answers is the confirmation. False: there was nothing."""
        with translated(f"ending {instance.id}"):
            try:
                answer = self._client(instance.region).terminate_instances(InstanceIds=[instance.id])
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return False
                raise
        state = answer["TerminatingInstances"][0]["CurrentState"]["Name"]
        if state in LIVING:
            raise ConfigurationError(f"EC2 still shows {instance.id} as {state} after TerminateInstances.", "End it at the EC2 console.")
        return True

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        wanted = {f"tag:{OWNER_TAG}": ["runner"], **{f"tag:{key}": [value] for key, value in tags.items()}, "instance-state-name": list(LIVING)}
        filters: Any = [{"Name": key, "Values": values} for key, values in wanted.items()]
        found: list[Instance] = []
        for region in {*regions, *(region for region, _ in self._built)}:
            with translated("looking for our instances"):
                pages = self._client(region).get_paginator("describe_instances").paginate(Filters=filters)
                found += [_instance(one, region) for page in pages for group in page["Reservations"] for one in group["Instances"]]
        return found

    def look(self, instance: Instance) -> Instance:
        with translated(f"looking at {instance.id}"):
            try:
                answer = self._client(instance.region).describe_instances(InstanceIds=[instance.id])
            except ClientError as error:
                # Not yet known everywhere: EC2 is eventually consistent.
                if code_of(error) in ABSENT:
                    return instance
                raise
        return _instance(answer["Reservations"][0]["Instances"][0], instance.region, instance.name)

    def console(self, instance: Instance) -> str:
        with translated(f"reading the console of {instance.id}"):
            try:
                return self._client(instance.region).get_console_output(InstanceId=instance.id, Latest=True).get("Output", "")
            except ClientError as error:
                # Only Nitro types give the latest output, and none in its first seconds.
                if code_of(error) in {"UnsupportedOperation", "Unsupported", "IncorrectInstanceState", *ABSENT}:
                    return ""
                raise


def _newest(images: Sequence[Any], plan: Plan) -> Any:
    """The latest of the images found. None is an error with the name in it, never another system instead."""
    if not images:
        raise ConfigurationError(f"There is no image {plan.image} for {plan.architecture} in {plan.region}.", "Give another `cloud-image`, or leave it out.")
    image = max(images, key=lambda one: one.get("CreationDate", ""))
    expected = words.ARCHITECTURES[plan.architecture][1]
    if image["Architecture"] != expected:
        text = f"The image {image['ImageId']} is for {image['Architecture']}, the type {plan.instance_type} is {expected}."
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")
    return image


def _usable(subnets: Iterable[Any], plan: Plan, asked: str | None) -> list[Any]:
    """Subnets in the order to try: those with most free addresses first, then by zone."""
    usable = sorted(subnets, key=lambda one: (-min(one.get("AvailableIpAddressCount", 0), 64), one["AvailabilityZone"]))
    if asked and plan.zone:
        usable = [one for one in usable if one["AvailabilityZone"] == plan.zone]
    if not usable:
        where = asked or f"default subnet in {plan.zone or plan.region}"
        raise ConfigurationError(f"There is no {where}.", "Give one as `cloud-aws-subnet`, or restore the default VPC with `aws ec2 create-default-vpc`.")
    return usable


def _instance(made: Any, region: str, name: str = "") -> Instance:
    known = {tag["Key"]: tag["Value"] for tag in made.get("Tags", ())}
    return Instance(
        provider=ProviderName.AWS,
        id=made["InstanceId"],
        name=name or known.get(f"{OWNER_TAG}:name", ""),
        region=region,
        zone=made.get("Placement", {}).get("AvailabilityZone", ""),
        instance_type=made["InstanceType"],
        image=made.get("ImageId", ""),
        spot=made.get("InstanceLifecycle") == "spot",
        address=made.get("PublicIpAddress") or made.get("PrivateIpAddress", ""),
        launched=made["LaunchTime"].isoformat() if "LaunchTime" in made else "",
        alive=made.get("State", {}).get("Name") in LIVING,
    )
