"""What the user's words mean on AWS, and the requests made from them. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner_action.errors import InputError
from runner_action.model import OWNER_TAG, CloudRequest, Machine, Placement, Plan

USER_DATA_LIMIT = 16 * 1024
"""https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html: 16 KB before Base64."""

REGIONS = {"us-east": "us-east-1", "us-west": "us-west-1", "eu-north": "eu-north-1", "eu-west": "eu-west-1"}
"""CML's words (terraform-provider-iterative)."""

TYPES = {"s": "t3.small", "m": "m6i.2xlarge", "l": "m6i.8xlarge", "xl": "m6i.16xlarge"}
"""CML's sizes by its figures (8, 32, 64 CPUs with 4 GB each), on the current generation."""

GPU_TYPES = {
    ("m", "t4"): "g4dn.xlarge",
    ("l", "t4"): "g4dn.12xlarge",
    ("xl", "t4"): "g4dn.metal",
    ("m", "l4"): "g6.xlarge",
    ("l", "l4"): "g6.12xlarge",
    ("xl", "l4"): "g6.48xlarge",
    ("m", "a10g"): "g5.xlarge",
    ("l", "a10g"): "g5.12xlarge",
    ("xl", "a10g"): "g5.48xlarge",
    ("m", "v100"): "p3.2xlarge",
    ("l", "v100"): "p3.8xlarge",
    ("xl", "v100"): "p3.16xlarge",
    ("xl", "a100"): "p4d.24xlarge",
    ("m", "h100"): "p5.4xlarge",
    ("xl", "h100"): "p5.48xlarge",
}
"""One, four and eight GPUs of a kind. https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html"""

CANONICAL = "099720109477"
"""https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/: owner of the official Ubuntu images."""
UBUNTU = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-*"
ARCHITECTURES = {"x64": ("amd64", "x86_64"), "arm64": ("arm64", "arm64")}
"""Ours -> (Ubuntu's, EC2's)."""


@dataclass(frozen=True, kw_only=True)
class AwsPlacement(Placement):
    """A placement with what RunInstances needs. No `security_groups`: ours must be made first."""

    image_id: str
    root_device: str
    disk_gb: int
    subnet_id: str
    vpc_id: str
    security_groups: tuple[str, ...]
    with_ssh: bool
    spot_price: float | None
    profile_arn: str | None


def plan(request: CloudRequest) -> Plan:
    """The request in AWS's words, with notes on what the user should know."""
    native = REGIONS.get(request.region, request.region)
    match = re.fullmatch(r"(.+-\d+)([a-z])?", native)
    if not match:
        raise InputError([f"cloud-region {request.region} is not a region or zone of AWS; write for example us-west or eu-central-1"])
    instance_type, notes = _instance_type(request)
    architecture = architecture_of(instance_type)
    return Plan(
        region=match[1],
        zone=native if match[2] else None,
        instance_type=instance_type,
        architecture=architecture,
        image=request.image or f"{CANONICAL}:{UBUNTU.format(ARCHITECTURES[architecture][0])}",
        disk_gb=request.disk_gb,
        spot=request.spot,
        spot_price=request.spot_price,
        notes=tuple(notes),
    )


def _instance_type(request: CloudRequest) -> tuple[str, list[str]]:
    size, _, gpu = request.size.partition("+")
    gpu = gpu or request.gpu or ""
    notes = []
    if gpu == "tesla":
        notes.append("GPU `tesla` means `v100`; `l4` and `a10g` are newer and cheaper")
        gpu = "v100"
    if gpu == "k80":
        notes.append("machines with K80 GPUs are gone at AWS; taking `t4` instead")
        gpu = "t4"
    if not gpu:
        return TYPES.get(size, size), notes
    found = GPU_TYPES.get((size, gpu))
    if not found:
        sizes = [f"{other}+{gpu}" for other in ("m", "l", "xl") if (other, gpu) in GPU_TYPES]
        known = sizes or sorted({name for _, name in GPU_TYPES})
        raise InputError([f"cloud-type {size}+{gpu} does not exist on AWS; write one of {', '.join(known)}"])
    if not request.image:
        notes.append("the standard image has no GPU driver; give `cloud-image` with one inside")
    return found, notes


def architecture_of(instance_type: str) -> str:
    """`arm64` or `x64` from the type's own name: a `g` among the letters behind the generation means Graviton.

    https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
    """
    match = re.match(r"[a-z]+\d+([a-z]*)", instance_type)
    return "arm64" if instance_type.startswith("a1.") or (match and "g" in match[1]) else "x64"


def image_query(image: str, architecture: str) -> dict[str, Any]:
    """DescribeImages request: by id, or by owner and name; never by name alone."""
    if image.startswith("ami-"):
        return {"ImageIds": [image]}
    owner, _, name = image.partition(":")
    filters = {"name": name, "state": "available", "architecture": ARCHITECTURES[architecture][1]}
    return {"Owners": [owner], "Filters": [{"Name": key, "Values": [value]} for key, value in filters.items()]}


def subnet_query(plan: Plan, subnet: str | None) -> dict[str, Any]:
    """DescribeSubnets request: the asked one, or the default ones of the region or zone."""
    if subnet:
        return {"SubnetIds": [subnet]}
    filters = {"default-for-az": "true", "state": "available", **({"availability-zone": plan.zone} if plan.zone else {})}
    return {"Filters": [{"Name": key, "Values": [value]} for key, value in filters.items()]}


def placement(plan: Plan, request: CloudRequest, image: Mapping[str, Any], subnet: Mapping[str, Any]) -> AwsPlacement:
    """The rung for one subnet. The disk is never smaller than the image's own."""
    root = image["RootDeviceName"]
    disks = {entry.get("DeviceName"): entry.get("Ebs", {}) for entry in image["BlockDeviceMappings"]}
    return AwsPlacement(
        region=plan.region,
        zone=subnet["AvailabilityZone"],
        instance_type=plan.instance_type,
        spot=plan.spot,
        image_id=image["ImageId"],
        root_device=root,
        disk_gb=max(plan.disk_gb, disks.get(root, {}).get("VolumeSize", 0)),
        subnet_id=subnet["SubnetId"],
        vpc_id=subnet["VpcId"],
        security_groups=(request.aws_security_group,) if request.aws_security_group else (),
        with_ssh=request.ssh_public_key is not None,
        spot_price=plan.spot_price,
        profile_arn=request.permission_set,
    )


def own_tags(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def run_instances(placement: AwsPlacement, machine: Machine, groups: Sequence[str], client_token: str) -> dict[str, Any]:
    """RunInstances request: one instance, tagged at birth with everything it brings, that ends for good when it powers off."""
    kinds = ["instance", "volume", "network-interface", *(["spot-instances-request"] if placement.spot else [])]
    disk = {"VolumeSize": placement.disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    request: dict[str, Any] = {
        "ImageId": placement.image_id,
        "InstanceType": placement.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token,
        "SubnetId": placement.subnet_id,
        "SecurityGroupIds": list(groups),
        "UserData": machine.user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [{"DeviceName": placement.root_device, "Ebs": disk}],
        "TagSpecifications": [entry for kind in kinds for entry in own_tags(kind, machine.tags)],
    }
    if placement.spot:
        terms: dict[str, Any] = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if placement.spot_price:
            terms["MaxPrice"] = f"{placement.spot_price:.5f}"
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": terms}
    if placement.profile_arn:
        request["IamInstanceProfile"] = {"Arn": placement.profile_arn}
    return request


def security_group(vpc_id: str, with_ssh: bool) -> dict[str, Any]:
    """CreateSecurityGroup request for the group of ours in a VPC. It serves all runners there, so it has no name of one and no expiry."""
    about = "cml-runner: SSH in, all out" if with_ssh else "cml-runner: nothing in, all out"
    name = group_name(with_ssh)
    return {
        "GroupName": name,
        "Description": about,
        "VpcId": vpc_id,
        "TagSpecifications": own_tags("security-group", {"Name": name, OWNER_TAG: "security-group"}),
    }


SSH_IN: dict[str, Any] = {
    "IpPermissions": [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "asked for by cloud-ssh-private"}]}
    ]
}


def group_name(with_ssh: bool) -> str:
    return f"{OWNER_TAG}-ssh" if with_ssh else OWNER_TAG
