"""The requests to EC2. Pure; tests check their shapes against botocore's own description."""

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
    """A placement with what its call needs. `security_group`: None if ours is used, which may
    have to be created first."""

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
    """DescribeSubnets request: the given subnets, or the default ones of the region or zones."""
    if subnets:
        return {"SubnetIds": list(subnets)}
    zones = [place.zone for place in places if place.zone]
    criteria: dict[str, Any] = {"default-for-az": "true", "state": "available"}
    return {
        "Filters": filters(
            {**criteria, **({"availability-zone": zones} if len(zones) == len(places) else {})}
        )
    }


def group_query(group: str | None, with_ssh: bool) -> Request:
    """DescribeSecurityGroups request: for the user's group, by id or name, or for ours."""
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


def filters(criteria: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"Name": key, "Values": [value] if isinstance(value, str) else list(value)}
        for key, value in criteria.items()
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
"""Version 2 of the metadata service only, and not from containers, which are one hop away."""


def metadata_options(placement: AwsPlacement) -> Request:
    """With an identity for jobs it reaches their containers too.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html#imds-considerations
    """
    return {**METADATA, "HttpPutResponseHopLimit": 2} if placement.profile_arn else METADATA


def run_instances(
    placement: AwsPlacement,
    pool: AwsPool,
    machine: Machine,
    count: int,
    group: str,
    client_token: str,
) -> Request:
    """RunInstances request: up to `count` instances, tagged at creation like everything that
    belongs to them, and terminated when they power off."""
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
        "MetadataOptions": metadata_options(placement),
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
    """CreateLaunchTemplate request. The template has the settings that CreateFleet itself cannot
    have, and nothing of a single launch, least of all its user data: it serves all launches with
    that security group, and is kept, as the group is."""
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
    """CreateFleet request: one call that tries all pools of a placement and answers with the
    instances (`instant`).

    On demand: in the order of the pools. Spot: the pools that are least likely to be interrupted
    first, and in the order of the pools among equals. A strict order would choose pools that are
    interrupted first.
    """
    template = {
        "LaunchTemplateName": template_name(group),
        "Version": "1",
        "LaunchTemplateSpecificationUserData": base64.b64encode(machine.user_data).decode(),
    }
    options: Request = {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}
    if placement.spot:
        options = {
            "SpotOptions": {
                "AllocationStrategy": "capacity-optimized-prioritized",
                "InstanceInterruptionBehavior": "terminate",
            }
        }
    return {
        "Type": "instant",
        "ClientToken": client_token,
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": template, "Overrides": _overrides(placement)}
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


def _overrides(placement: AwsPlacement) -> list[Request]:
    """Of the launch template, for each pool of a fleet."""
    common: Request = {
        "ImageId": placement.image_id,
        "BlockDeviceMappings": [_root(placement.disk)],
        **_price("MaxPrice", placement),
    }
    if placement.profile_arn:
        common["IamInstanceProfile"] = {"Arn": placement.profile_arn}
        # Instead of the template's, which has none of a single launch's settings.
        common["MetadataOptions"] = metadata_options(placement)
    types = list(dict.fromkeys(pool.instance_type for pool in placement.pools))
    return [
        {
            **common,
            "InstanceType": pool.instance_type,
            "SubnetId": pool.subnet_id,
            "Priority": float(types.index(pool.instance_type)),
        }
        for pool in placement.pools
    ]


def security_group(vpc_id: str, with_ssh: bool) -> Request:
    """CreateSecurityGroup request for our group in a VPC. It serves all runners there, so it has
    the name of none and no lease."""
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
