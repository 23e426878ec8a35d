"""From what EC2 answered to placements: which image, which pools of machines, in which order.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class Found:
    """What EC2 says about one region. `groups`: the user's security group, by VPC; None for
    ours. `offered`: type and zone; None if EC2 may not be asked."""

    region: str
    images: Sequence[Answer]
    subnets: Sequence[Answer]
    groups: Mapping[str, str] | None
    offered: frozenset[tuple[str, str]] | None


def placements(plan: Plan, request: CloudRequest, found: Found) -> list[AwsPlacement]:
    """For every market and VPC (there is mostly one) a placement with all its pools. Raises
    ConfigurationError if there is none."""
    image = newest(found.images, plan, found.region)
    subnets = usable(found, plan, request)
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
    made = []
    for spot in plan.spots:
        for vpc, pools in _pools(plan, found, subnets).items():
            made.append(
                AwsPlacement(
                    region=found.region,
                    spot=spot,
                    pools=tuple(pools),
                    image_id=image["ImageId"],
                    login=login(image),
                    disk=disk,
                    vpc_id=vpc,
                    security_group=found.groups[vpc] if found.groups is not None else None,
                    with_ssh=request.ssh_public_key is not None,
                    spot_price=plan.spot_price,
                    profile_arn=request.permission_set,
                )
            )
    return made


def _pools(plan: Plan, found: Found, subnets: Sequence[Answer]) -> dict[str, list[AwsPool]]:
    """Pools by VPC: types in the user's order, each in all zones that offer it. One subnet a
    zone: EC2 refuses a fleet with two of them."""
    by_vpc: dict[str, list[AwsPool]] = {}
    for wanted in plan.instance_types:
        taken = set()
        for subnet in subnets:
            zone, vpc = subnet["AvailabilityZone"], subnet["VpcId"]
            if (vpc, zone) in taken or (
                found.offered is not None and (wanted, zone) not in found.offered
            ):
                continue
            taken.add((vpc, zone))
            by_vpc.setdefault(vpc, []).append(
                AwsPool(instance_type=wanted, zone=zone, subnet_id=subnet["SubnetId"])
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
    """The latest of the images found. None is an error with the name in it, never another system
    instead."""
    if not images:
        raise ConfigurationError(
            f"There is no image {plan.image} for {plan.architecture} in {region}.",
            "Give another `cloud-image`, or leave it out.",
        )
    image = max(images, key=lambda one: one.get("CreationDate", ""))
    expected = ARCHITECTURES[plan.architecture][1]
    if image["Architecture"] != expected:
        text = (
            f"The image {image['ImageId']} is for {image['Architecture']}, the type"
            f" {plan.instance_types[0]} is {expected}."
        )
        raise ConfigurationError(text, "Choose `cloud-image` and `cloud-type` of one architecture.")
    return image


def usable(found: Found, plan: Plan, request: CloudRequest) -> list[Answer]:
    """Subnets in the order to try: zones as the user lists them, else those with most free
    addresses first."""
    zones = [place.zone for place in plan.places if place.region == found.region]
    everywhere = None in zones
    subnets: Iterable[Answer] = (
        found.subnets
        if everywhere
        else [one for one in found.subnets if one["AvailabilityZone"] in zones]
    )
    ordered = sorted(
        subnets,
        key=lambda one: (
            0 if everywhere else zones.index(one["AvailabilityZone"]),
            -min(one.get("AvailableIpAddressCount", 0), 64),
            one["AvailabilityZone"],
        ),
    )
    where = ", ".join(str(zone) for zone in zones if zone) or found.region
    if not ordered and options_of(request).subnets:
        given = ", ".join(
            f"{one['SubnetId']} in {one['AvailabilityZone']}" for one in found.subnets
        )
        raise ConfigurationError(
            f"None of the subnets is in {where}: {given}.",
            "Write zones of `cloud-region` and subnets that fit.",
        )
    if not ordered:
        hint = (
            "Give subnets as `cloud-aws-subnet`, or make a default VPC with `aws ec2"
            " create-default-vpc`."
        )
        raise ConfigurationError(
            f"This account has no default subnet in {where}.",
            f"{hint} (`aws ec2 create-default-subnet` for a single zone.)",
        )
    if found.groups is None:
        return ordered
    fitting = [one for one in ordered if one["VpcId"] in found.groups]
    if not fitting:
        group = options_of(request).security_group
        there = ", ".join(sorted(found.groups)) or f"none of {found.region}"
        have = ", ".join(sorted({one["VpcId"] for one in ordered}))
        raise ConfigurationError(
            f"The security group {group} is in {there}, the subnets are in {have}.",
            "Give subnets of the group's VPC as `cloud-aws-subnet`, or another group.",
        )
    return fitting


def login(image: Answer) -> str:
    """The image's own user, by its name and description: for the line that says how to log in."""
    told = f"{image.get('Name', '')} {image.get('Description', '')}".lower()
    return next((user for word, user in LOGINS.items() if word in told), "ubuntu")
