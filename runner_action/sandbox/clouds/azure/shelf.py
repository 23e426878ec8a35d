"""What the embedded Azure has to offer: images, and sizes by region, as the API tells them."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Response, request

from runner_action.sandbox.clouds.azure.rbac import error

ADDRESS = "203.0.113.7"
REGIONS = ("eastus", "westus2", "northeurope", "westeurope")
TRUSTED = [{"name": "SecurityType", "value": "TrustedLaunchSupported"}]
IMAGES: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {
    ("Canonical", "ubuntu-24_04-lts", "server"): {
        version: {
            "architecture": "x64",
            "hyperVGeneration": "V2",
            "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": 30},
            "features": TRUSTED,
        }
        for version in ("24.04.202610010", "24.04.202611010")
    },
    ("Canonical", "ubuntu-24_04-lts", "server-arm64"): {
        "24.04.202611010": {
            "architecture": "Arm64",
            "hyperVGeneration": "V2",
            "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": 30},
            "features": TRUSTED,
        }
    },
    ("center-for-internet-security-inc", "cis-ubuntu", "cis-ubuntulinux2404-l1-gen2"): {
        "1.0.0": {
            "architecture": "x64",
            "hyperVGeneration": "V2",
            "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": 30},
            "features": TRUSTED,
            "plan": {
                "publisher": "center-for-internet-security-inc",
                "name": "cis-ubuntulinux2404-l1-gen2",
                "product": "cis-ubuntu",
            },
        }
    },
    ("microsoft-dsvm", "ubuntu-hpc", "2404"): {
        "24.04.2026110501": {
            "architecture": "x64",
            "hyperVGeneration": "V2",
            "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": 64},
            "features": TRUSTED,
        }
    },
}


def sku(
    name: str,
    regions: tuple[str, ...] = REGIONS,
    zones: tuple[str, ...] = ("1", "2", "3"),
    shut: str = "",
    **capabilities: str,
) -> list[dict[str, Any]]:
    """One entry for each region, as Azure lists it. `shut`: `Location`, or the zone that this
    subscription may not use."""
    info = {
        "type": "Zone" if shut != "Location" else shut,
        "reasonCode": "NotAvailableForSubscription",
        "values": list(regions),
        "restrictionInfo": {"zones": [shut]},
    }
    told = [
        {"name": key, "value": value}
        for key, value in {
            "HyperVGenerations": "V1,V2",
            "CpuArchitectureType": "x64",
            **capabilities,
        }.items()
    ]
    return [
        {
            "resourceType": "virtualMachines",
            "name": name,
            "locations": [region],
            "locationInfo": [{"location": region, "zones": list(zones)}],
            "capabilities": told,
            "restrictions": [info] if shut else [],
        }
        for region in regions
    ]


SKUS: list[dict[str, Any]] = [
    {
        "resourceType": "disks",
        "name": "StandardSSD_LRS",
        "locations": list(REGIONS),
        "locationInfo": [],
        "capabilities": [],
        "restrictions": [],
    },
    *sku("Standard_B2s"),
    *sku("Standard_D8s_v5"),
    *sku("Standard_D32s_v5"),
    *sku("Standard_D64s_v5", shut="2"),
    *sku("Standard_D8ps_v5", CpuArchitectureType="Arm64", HyperVGenerations="V2"),
    *sku("Standard_D4s_v3", TrustedLaunchDisabled="True"),
    *sku("Standard_D2s_v4", shut="Location"),
    *sku("Standard_NC4as_T4_v3", ("westeurope", "eastus"), ("1",)),
    *sku("Standard_NC64as_T4_v3", ("westeurope", "eastus"), ()),
    *sku("Standard_NC24ads_A100_v4", ("westeurope",), ("2",)),
    *sku("Standard_NC40ads_H100_v5", ("eastus",), ("3",)),
]


def skus() -> Any:
    match = re.fullmatch(r"location eq '(.*)'", request.args.get("$filter", ""))
    return {"value": [one for one in SKUS if not match or match[1] in one["locations"]]}


def versions(publisher: str, offer: str, sku: str) -> Any:
    found = [
        {"name": version, "location": "westus2", "id": f"{request.path}/{version}"}
        for version in IMAGES.get((publisher, offer, sku), {})
    ]
    return Response(
        json.dumps(sorted(found, key=lambda one: one["name"], reverse=True)),
        content_type="application/json",
    )


def image(publisher: str, offer: str, sku: str, version: str) -> Any:
    found = IMAGES.get((publisher, offer, sku), {}).get(version)
    if not found:
        return error(404, "NotFound", "Artifact: VMImage was not found.")
    return {"name": version, "id": request.path, "location": "westus2", "properties": found}
