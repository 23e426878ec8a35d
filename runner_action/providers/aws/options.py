"""What a launch can ask of AWS alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.request import CloudOptions, CloudRequest


@dataclass(frozen=True, kw_only=True)
class AwsOptions(CloudOptions):
    """What only AWS knows: network and disk."""

    security_group: str | None = None
    """Id or name."""
    subnets: tuple[str, ...] = ()
    kms_key: str | None = None
    hdd_iops: int | None = None
    hdd_throughput: int | None = None
    """MiB a second."""


def from_inputs(value: Mapping[str, Any]) -> AwsOptions:
    """`value`: the checked inputs, by their names."""
    return AwsOptions(
        security_group=value["cloud-aws-security-group"],
        subnets=tuple(value["cloud-aws-subnet"]),
        kms_key=value["cloud-aws-kms-key"],
        hdd_iops=value["cloud-aws-hdd-iops"],
        hdd_throughput=value["cloud-aws-hdd-throughput"],
    )


def options_of(request: CloudRequest) -> AwsOptions:
    assert isinstance(request.options, AwsOptions)
    return request.options
