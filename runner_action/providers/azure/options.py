"""What a launch can ask of Azure alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.request import CloudOptions, CloudRequest


@dataclass(frozen=True, kw_only=True)
class AzureAccount:
    """Who asks Azure, and for what it pays: ids, none of them secret."""

    client_id: str | None = None
    tenant_id: str | None = None
    subscription_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class AzureOptions(CloudOptions):
    """What only Azure knows: who asks, network, disk."""

    account: AzureAccount
    subnet: str | None = None
    """Its id; None: a network of the machine's own."""
    private: bool = False
    """No public address."""
    disk_encryption_set: str | None = None
    """Its id; None: Azure's own keys."""


def from_inputs(value: Mapping[str, Any]) -> AzureOptions:
    """`value`: the checked inputs, by their names."""
    return AzureOptions(
        account=AzureAccount(
            client_id=value["azure-client-id"],
            tenant_id=value["azure-tenant-id"],
            subscription_id=value["azure-subscription-id"],
        ),
        subnet=value["cloud-azure-subnet"],
        private=bool(value["cloud-azure-private"]),
        disk_encryption_set=value["cloud-azure-disk-encryption-set"],
    )


def options_of(request: CloudRequest) -> AzureOptions:
    assert isinstance(request.options, AzureOptions)
    return request.options
