"""What the user's words stand for on Azure: data, with its sources.

Sizes: https://learn.microsoft.com/azure/virtual-machines/sizes/overview. CML's words:
terraform-provider-iterative, az.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.providers.gpus import GpuTable

REGIONS: Mapping[str, str] = {
    "us-east": "eastus",
    "us-west": "westus2",
    "eu-north": "northeurope",
    "eu-west": "westeurope",
}

TYPES: Mapping[str, str] = {
    "s": "Standard_B2s",
    "m": "Standard_D8s_v5",
    "l": "Standard_D32s_v5",
    "xl": "Standard_D64s_v5",
}
"""CML's sizes by its figures: 8, 32, 64 CPUs with 4 GB each. B1s has 1 GB, too little for a
runner."""

T4 = "Standard_NC4as_T4_v3"
GPUS = GpuTable(
    cloud="Azure",
    types={
        "t4": {1: T4, 4: "Standard_NC64as_T4_v3"},
        "a100": {
            1: "Standard_NC24ads_A100_v4",
            2: "Standard_NC48ads_A100_v4",
            4: "Standard_NC96ads_A100_v4",
            8: "Standard_ND96asr_v4",
        },
        "h100": {
            1: "Standard_NC40ads_H100_v5",
            2: "Standard_NC80adis_H100_v5",
            8: "Standard_ND96isr_H100_v5",
        },
    },
    gone={
        "k80": ("t4", "Azure has retired its machines with K80 GPUs (NC)"),
        "v100": ("a100", "Azure retired its machines with V100 GPUs (NCv3) in September 2025"),
        "l4": ("t4", "Azure has no L4 GPUs"),
        "a10g": ("t4", "Azure has A10 GPUs in slices only, for which no image has a driver"),
    },
    retired={
        r"Standard_NC6": ("Azure has retired its machines with K80 GPUs (NC)", T4),
        r"Standard_NC(12|24)r?": (
            "Azure has retired its machines with K80 GPUs (NC)",
            "Standard_NC64as_T4_v3",
        ),
        r"Standard_NC\d+r?s_v2": (
            "Azure has retired its machines with P100 GPUs (NCv2)",
            "Standard_NC24ads_A100_v4",
        ),
        r"Standard_NC\d+r?s_v3": (
            "Azure retired its machines with V100 GPUs (NCv3) in September 2025",
            "Standard_NC24ads_A100_v4",
        ),
        r"Standard_ND\d+r?s": ("Azure has retired its machines with P40 GPUs (ND)", T4),
        r"Standard_NV\d+": ("Azure has retired its machines with M60 GPUs (NV)", T4),
    },
)
"""The smallest size with that many GPUs.
https://learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated/ (retired: ncv3-series)
https://learn.microsoft.com/azure/virtual-machines/sizes/retirement/retired-sizes-list"""

ARCHITECTURES: Mapping[str, str] = {"x64": "x64", "arm64": "Arm64"}
"""Ours -> Azure's."""

UBUNTU: Mapping[str, str] = {
    "x64": "Canonical:ubuntu-24_04-lts:server:latest",
    "arm64": "Canonical:ubuntu-24_04-lts:server-arm64:latest",
}
"""Ubuntu 24.04 of the second generation.
https://documentation.ubuntu.com/azure/azure-how-to/instances/find-ubuntu-images/"""
WITH_DRIVER = "microsoft-dsvm:ubuntu-hpc:2404:latest"
"""Microsoft's Ubuntu 24.04 with NVIDIA's driver, CUDA, Docker and the container toolkit.
https://github.com/Azure/azhpc-images"""
ROOM_GB = 32
"""In addition to that image, which fills all but some 7 of its 64 GB."""
