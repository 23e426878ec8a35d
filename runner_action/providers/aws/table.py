"""What the user's words stand for on AWS: data, with its sources. Tests compare it with botocore's
list of types.

Types and their GPUs: https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
CML's words: terraform-provider-iterative, aws.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.providers.gpus import GpuTable

REGIONS: Mapping[str, str] = {
    "us-east": "us-east-1",
    "us-west": "us-west-1",
    "eu-north": "eu-north-1",
    "eu-west": "eu-west-1",
}

TYPES: Mapping[str, str] = {
    "s": "t3.small",
    "m": "m6i.2xlarge",
    "l": "m6i.8xlarge",
    "xl": "m6i.16xlarge",
}
"""CML's sizes by its figures (8, 32, 64 CPUs with 4 GB each), of a generation that all regions
have."""

GPUS = GpuTable(
    cloud="AWS",
    types={
        "t4": {1: "g4dn.xlarge", 4: "g4dn.12xlarge", 8: "g4dn.metal"},
        "l4": {1: "g6.xlarge", 4: "g6.12xlarge", 8: "g6.48xlarge"},
        "a10g": {1: "g5.xlarge", 4: "g5.12xlarge", 8: "g5.48xlarge"},
        "a100": {8: "p4d.24xlarge"},
        "h100": {1: "p5.4xlarge", 8: "p5.48xlarge"},
        "v100": {1: "p3.2xlarge", 4: "p3.8xlarge", 8: "p3.16xlarge"},
    },
    gone={
        "k80": ("t4", "AWS has retired its machines with K80 GPUs (p2)"),
        "v100": ("a10g", "AWS's images no longer have a driver for V100 GPUs (p3)"),
    },
    retired={
        r"p2\.xlarge": ("AWS has retired its machines with K80 GPUs (p2)", "g4dn.xlarge"),
        r"p2\.8xlarge": ("AWS has retired its machines with K80 GPUs (p2)", "g4dn.12xlarge"),
        r"p2\.16xlarge": ("AWS has retired its machines with K80 GPUs (p2)", "g4dn.metal"),
    },
)
"""The smallest type with that many GPUs. https://docs.aws.amazon.com/dlami/latest/devguide/:
drivers from R590 on leave Volta out. The retirement of p2:
https://github.com/aws/deep-learning-containers/pull/3950"""

DRIVEN = frozenset(
    {
        "g4dn",
        "g5",
        "g5g",
        "g6",
        "g6e",
        "g7",
        "g7e",
        "gr6",
        "p4d",
        "p4de",
        "p5",
        "p5e",
        "p5en",
        "p6-b200",
        "p6-b300",
        "p6e-gb200",
        "p6e-gb300",
    }
)
"""Families with a GPU for which AWS's base image has a driver, by its release notes. g7e: as g7,
which has the same GPU generation."""
UNDRIVEN = frozenset({"g2", "g3", "g3s", "g4ad", "p2", "p3", "p3dn"})
"""Families with a GPU for which it has no driver."""

ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "x64": ("amd64", "x86_64"),
    "arm64": ("arm64", "arm64"),
}
"""Ours -> (Ubuntu's, EC2's)."""

UBUNTU = "099720109477:ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-*"
"""https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/: Canonical's
account, and its name for Ubuntu 24.04."""
WITH_DRIVER: Mapping[str, str] = {
    "x64": "amazon:Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
    "arm64": "amazon:Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
}
"""Ubuntu with NVIDIA's driver, CUDA, Docker and the container toolkit.
https://docs.aws.amazon.com/dlami/latest/devguide/ (release notes)."""

LOGINS: Mapping[str, str] = {
    "ubuntu": "ubuntu",
    "debian": "admin",
    "amazon linux": "ec2-user",
    "al2023": "ec2-user",
    "amzn": "ec2-user",
    "rhel": "ec2-user",
}
"""Word of an image's name -> its user.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/managing-users.html"""
