"""What a launch can ask of Google Cloud alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.model import Secret, secret_of
from runner_action.request import CloudOptions, CloudRequest


@dataclass(frozen=True, kw_only=True)
class GcpOptions(CloudOptions):
    """What only Google Cloud knows: who asks, who pays, network, disk."""

    project: str | None = None
    credentials: Secret | None = None
    """Text of a key, or of a federation's configuration; None for those of the environment."""
    network: str = "default"
    subnetwork: str | None = None
    private: bool = False
    """No external address."""
    kms_key: str | None = None
    """Its path; None: Google's own keys."""


def from_inputs(value: Mapping[str, Any]) -> GcpOptions:
    """`value`: the checked inputs, by their names."""
    return GcpOptions(
        project=value["gcp-project"],
        credentials=secret_of(value["gcp-credentials"]),
        network=value["cloud-gcp-network"] or "default",
        subnetwork=value["cloud-gcp-subnetwork"],
        private=bool(value["cloud-gcp-private"]),
        kms_key=value["cloud-gcp-kms-key"],
    )


def options_of(request: CloudRequest) -> GcpOptions:
    assert isinstance(request.options, GcpOptions)
    return request.options
