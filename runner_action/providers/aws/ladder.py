"""From EC2's answers to placements: which image and which pools of machines, in which order.
Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner_action.errors import ConfigurationError
from runner_action.model import Plan
from runner_action.providers.aws.options import options_of
from runner_action.providers.aws.requests import AwsPlacement, AwsPool, Disk
from runner_action.providers.aws.table import ARCHITECTURES, LOGINS
from runner_action.request import CloudRequest

Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What EC2 says about one region. `groups`: the id of the user's security group, by VPC; None
    if ours is used. `offered`: types and their zones; None if the credentials may not ask."""

    region: str
    images: Sequence[Answer]
    subnets: Sequence[Answer]
    groups: Mapping[str, str] | None
    offered: frozenset[tuple[str, str]] | None


def placements(plan: Plan, request: CloudRequest, facts: Facts) -> list[AwsPlacement]:
    """A placement for every market and VPC (mostly there is one VPC), with all its pools. Raises
    ConfigurationError if there is none."""
    image = newest(facts.images, plan, facts.region)
    subnets = usable(facts, plan, request)
    disks = {
        entry.get("DeviceName"): entry.get("Ebs", {}) for entry in image["BlockDeviceMappings"]
    }
    root = image["RootDeviceName"]
    disk = Disk(
        device=root,
        size_gb=max(plan.disk_gb, disks.get(root, {}).get("VolumeSize", 0)),
        kms_key=options_of(request).kms_key,
        iops=options_of(request).hdd_iops,
        throughput=options_of(request).hdd_throughput,
    )
    ladder = []
    for spot in plan.spots:
        for vpc, pools in _pools(plan, facts, subnets).items():
            ladder.append(
                AwsPlacement(
                    region=facts.region,
                    spot=spot,
                    pools=tuple(pools),
                    image_id=image["ImageId"],
                    login=login(image),
                    disk=disk,
                    vpc_id=vpc,
                    security_group=facts.groups[vpc] if facts.groups is not None else None,
                    with_ssh=request.ssh_public_key is not None,
                    spot_price=plan.spot_price,
                    profile_arn=request.permission_set,
                )
            )
    return ladder


def _pools(plan: Plan, facts: Facts, subnets: Sequence[Answer]) -> dict[str, list[AwsPool]]:
    """Pools by VPC: types in the user's order, each in all zones that offer it. One subnet per
    zone, as EC2 refuses a fleet with two."""
    by_vpc: dict[str, list[AwsPool]] = {}
    for instance_type in plan.instance_types:
        taken = set()
        for subnet in subnets:
            zone, vpc = subnet["AvailabilityZone"], subnet["VpcId"]
            if (vpc, zone) in taken or (
                facts.offered is not None and (instance_type, zone) not in facts.offered
            ):
                continue
            taken.add((vpc, zone))
            by_vpc.setdefault(vpc, []).append(
                AwsPool(instance_type=instance_type, zone=zone, subnet_id=subnet["SubnetId"])
            )
    if not by_vpc:
        zones = ", ".join(dict.fromkeys(subnet["AvailabilityZone"] for subnet in subnets))
        text = f"AWS does not offer {', '.join(plan.instance_types)} in {zones}."
        raise ConfigurationError(
            text,
            "Write another `cloud-type` or `cloud-region`; `aws ec2"
            " describe-instance-type-offerings` lists what each region has.",
        )
    return by_vpc


def newest(images: Sequence[Answer], plan: Plan, region: str) -> Answer:
    """The latest of the images. Raises ConfigurationError if there is none, or if its architecture
    is another; never falls back to another system."""
    if not images:
        raise ConfigurationError(
            f"There is no image {plan.image} for {plan.architecture} in {region}.",
            "Give another `cloud-image`, or leave it out.",
        )
    image = max(images, key=lambda candidate: candidate.get("CreationDate", ""))
    expected = ARCHITECTURES[plan.architecture][1]
    if image["Architecture"] != expected:
        text = (
            f"The image {image['ImageId']} is for {image['Architecture']}, the type"
            f" {plan.instance_types[0]} is {expected}."
        )
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")
    return image


def usable(facts: Facts, plan: Plan, request: CloudRequest) -> list[Answer]:
    """The subnets in the order to try: by the user's list of zones, else by free addresses, most
    first. Raises ConfigurationError if there is none."""
    zones = [place.zone for place in plan.places if place.region == facts.region]
    everywhere = None in zones
    subnets = [
        subnet for subnet in facts.subnets if everywhere or subnet["AvailabilityZone"] in zones
    ]
    if not subnets:
        where = ", ".join(str(zone) for zone in zones if zone) or facts.region
        raise _no_subnet(facts, where, given=bool(options_of(request).subnets))
    ordered = sorted(
        subnets,
        key=lambda subnet: (
            0 if everywhere else zones.index(subnet["AvailabilityZone"]),
            -min(subnet.get("AvailableIpAddressCount", 0), 64),
            subnet["AvailabilityZone"],
        ),
    )
    if facts.groups is None:
        return ordered
    fitting = [subnet for subnet in ordered if subnet["VpcId"] in facts.groups]
    if not fitting:
        group = options_of(request).security_group
        there = ", ".join(sorted(facts.groups)) or f"none of {facts.region}"
        have = ", ".join(sorted({subnet["VpcId"] for subnet in ordered}))
        raise ConfigurationError(
            f"The security group {group} is in {there}, the subnets are in {have}.",
            "Give subnets of the group's VPC as `cloud-aws-subnet`, or another group.",
        )
    return fitting


def _no_subnet(facts: Facts, where: str, *, given: bool) -> ConfigurationError:
    """`given`: the user has listed the subnets."""
    if given:
        listed = ", ".join(
            f"{subnet['SubnetId']} in {subnet['AvailabilityZone']}" for subnet in facts.subnets
        )
        return ConfigurationError(
            f"None of the subnets of `cloud-aws-subnet` is in {where}: {listed}.",
            "Write zones of `cloud-region` and subnets that fit.",
        )
    return ConfigurationError(
        f"This account has no default subnet in {where}.",
        "Give subnets as `cloud-aws-subnet`, or create a default VPC with `aws ec2"
        " create-default-vpc`. (`aws ec2 create-default-subnet` for a single zone.)",
    )


def login(image: Answer) -> str:
    """The user of an image, by its name and description, for the line that says how to log in."""
    text = f"{image.get('Name', '')} {image.get('Description', '')}".lower()
    return next((user for word, user in LOGINS.items() if word in text), "ubuntu")
