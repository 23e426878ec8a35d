"""The requests to EC2, made from what was looked up. Pure: their shapes are those of botocore's
own description."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner_action.model import OWNER_TAG, Machine, Place, Placement, Pool
from runner_action.providers.aws.table import ARCHITECTURES

Request = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AwsPool(Pool):
    subnet_id: str


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The root volume. `device`: its name in the image."""

    device: str
    size_gb: int
    kms_key: str | None = None
    iops: int | None = None
    throughput: int | None = None


@dataclass(frozen=True, kw_only=True)
class AwsPlacement(Placement):
    """A placement with what its call needs. No `security_group`: ours must be made first."""

    pools: tuple[AwsPool, ...]
    image_id: str
    login: str
    disk: Disk
    vpc_id: str
    security_group: str | None
    with_ssh: bool
    spot_price: float | None
    profile_arn: str | None


def image_query(image: str, architecture: str) -> Request:
    """DescribeImages request: by id, or by owner and name; never by name alone."""
    if image.startswith("ami-"):
        return {"ImageIds": [image]}
    owner, _, name = image.partition(":")
    return {
        "Owners": [owner],
        "Filters": filters(
            {"name": name, "state": "available", "architecture": ARCHITECTURES[architecture][1]}
        ),
    }


def subnet_query(places: Sequence[Place], subnets: Sequence[str]) -> Request:
    """DescribeSubnets request: the asked ones, or the default ones of the region or its zones."""
    if subnets:
        return {"SubnetIds": list(subnets)}
    zones = [place.zone for place in places if place.zone]
    wanted: dict[str, Any] = {"default-for-az": "true", "state": "available"}
    return {
        "Filters": filters(
            {**wanted, **({"availability-zone": zones} if len(zones) == len(places) else {})}
        )
    }


def group_query(group: str | None, with_ssh: bool) -> Request:
    """DescribeSecurityGroups request: of the user's group, by id or name, or of ours."""
    if group is None:
        return {
            "Filters": filters(
                {f"tag:{OWNER_TAG}": "security-group", "group-name": group_name(with_ssh)}
            )
        }
    return (
        {"GroupIds": [group]}
        if group.startswith("sg-")
        else {"Filters": filters({"group-name": group})}
    )


def offerings_query(types: Sequence[str]) -> Request:
    return {"LocationType": "availability-zone", "Filters": filters({"instance-type": list(types)})}


def filters(wanted: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"Name": key, "Values": [value] if isinstance(value, str) else list(value)}
        for key, value in wanted.items()
    ]


def own_tags(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": pairs(tags)}]


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


METADATA: Request = {
    "HttpEndpoint": "enabled",
    "HttpTokens": "required",
    "HttpPutResponseHopLimit": 1,
}
"""Version 2 of the metadata service only, and not for containers, which are one hop away."""


def run_instances(
    placement: AwsPlacement,
    pool: AwsPool,
    machine: Machine,
    count: int,
    group: str,
    client_token: str,
) -> Request:
    """RunInstances request: up to `count` instances, tagged at birth with everything they bring,
    that end for good when they power off."""
    kinds = [
        "instance",
        "volume",
        "network-interface",
        *(["spot-instances-request"] if placement.spot else []),
    ]
    request: Request = {
        "ImageId": placement.image_id,
        "InstanceType": pool.instance_type,
        "MinCount": 1,
        "MaxCount": count,
        "ClientToken": client_token,
        "SubnetId": pool.subnet_id,
        "SecurityGroupIds": [group],
        "UserData": machine.user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": METADATA,
        "BlockDeviceMappings": [_root(placement.disk)],
        "TagSpecifications": [entry for kind in kinds for entry in own_tags(kind, machine.tags)],
    }
    if placement.spot:
        terms = {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
            **_price("MaxPrice", placement),
        }
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": terms}
    if placement.profile_arn:
        request["IamInstanceProfile"] = {"Arn": placement.profile_arn}
    return request


def _root(disk: Disk) -> Request:
    options = {"KmsKeyId": disk.kms_key, "Iops": disk.iops, "Throughput": disk.throughput}
    given = {key: value for key, value in options.items() if value is not None}
    return {
        "DeviceName": disk.device,
        "Ebs": {
            "VolumeSize": disk.size_gb,
            "VolumeType": "gp3",
            "Encrypted": True,
            "DeleteOnTermination": True,
            **given,
        },
    }


def _price(key: str, placement: AwsPlacement) -> dict[str, str]:
    return {key: f"{placement.spot_price:.5f}"} if placement.spot and placement.spot_price else {}


def template_name(group: str) -> str:
    return f"{OWNER_TAG}-{group}"


def launch_template(group: str) -> Request:
    """CreateLaunchTemplate request. The template holds what a fleet can say nowhere else, and
    nothing of one launch, least of all its user data: so it serves all launches with that
    security group, and stays, as the group does."""
    return {
        "LaunchTemplateName": template_name(group),
        "LaunchTemplateData": {
            "InstanceInitiatedShutdownBehavior": "terminate",
            "SecurityGroupIds": [group],
            "MetadataOptions": METADATA,
        },
        "TagSpecifications": own_tags(
            "launch-template", {"Name": template_name(group), OWNER_TAG: "launch-template"}
        ),
    }


def create_fleet(
    placement: AwsPlacement, machine: Machine, count: int, group: str, client_token: str
) -> Request:
    """CreateFleet request: one call that tries all pools of a placement, and gives what there is
    at once (`instant`).

    On demand in the order of the pools. Spot machines from the pools that are least likely to be
    taken back, and in that order among equals: a strict order would choose those that are
    interrupted first.
    """
    common: Request = {
        "ImageId": placement.image_id,
        "BlockDeviceMappings": [_root(placement.disk)],
        **_price("MaxPrice", placement),
    }
    if placement.profile_arn:
        common["IamInstanceProfile"] = {"Arn": placement.profile_arn}
    types = list(dict.fromkeys(pool.instance_type for pool in placement.pools))
    template = {
        "LaunchTemplateName": template_name(group),
        "Version": "1",
        "LaunchTemplateSpecificationUserData": base64.b64encode(machine.user_data).decode(),
    }
    overrides = [
        {
            **common,
            "InstanceType": pool.instance_type,
            "SubnetId": pool.subnet_id,
            "Priority": float(types.index(pool.instance_type)),
        }
        for pool in placement.pools
    ]
    options: Request = (
        {
            "SpotOptions": {
                "AllocationStrategy": "capacity-optimized-prioritized",
                "InstanceInterruptionBehavior": "terminate",
            }
        }
        if placement.spot
        else {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}
    )
    return {
        "Type": "instant",
        "ClientToken": client_token,
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": template, "Overrides": overrides}
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": count,
            "DefaultTargetCapacityType": "spot" if placement.spot else "on-demand",
        },
        "TagSpecifications": [
            entry
            for kind in ("fleet", "instance", "volume", "network-interface")
            for entry in own_tags(kind, machine.tags)
        ],
        **options,
    }


def security_group(vpc_id: str, with_ssh: bool) -> Request:
    """CreateSecurityGroup request for the group of ours in a VPC. It serves all runners there,
    so it has no name of one and no expiry."""
    name = group_name(with_ssh)
    return {
        "GroupName": name,
        "Description": group_description(with_ssh),
        "VpcId": vpc_id,
        "TagSpecifications": own_tags(
            "security-group", {"Name": name, OWNER_TAG: "security-group"}
        ),
    }


SSH_IN: Request = {
    "IpPermissions": [
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "asked for by cloud-ssh-private"}],
        }
    ]
}


def group_description(with_ssh: bool) -> str:
    """Nobody can change it once the group is there, unlike its tags.
    https://docs.aws.amazon.com/vpc/latest/userguide/security-groups.html"""
    return "cml-runner: SSH in, all out" if with_ssh else "cml-runner: nothing in, all out"


def group_name(with_ssh: bool) -> str:
    return f"{OWNER_TAG}-ssh" if with_ssh else OWNER_TAG
