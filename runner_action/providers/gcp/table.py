"""What the user's words stand for on Google Cloud: data, with its sources.

Types: https://cloud.google.com/compute/docs/machine-resource, GPUs:
https://cloud.google.com/compute/docs/gpus CML's words: terraform-provider-iterative, gcp.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner_action.providers.gpus import GpuTable

REGIONS: Mapping[str, str] = {
    "us-east": "us-east1",
    "us-west": "us-west1",
    "eu-north": "europe-north1",
    "eu-west": "europe-west1",
}
"""CML's words, whose zones were in these regions. All zones of a region are tried."""

TYPES: Mapping[str, str] = {
    "s": "e2-small",
    "m": "e2-standard-8",
    "l": "e2-standard-32",
    "xl": "n2-standard-64",
}
"""CML's sizes by its figures: 8, 32, 64 CPUs with 4 GB each."""

GPUS = GpuTable(
    cloud="Google Cloud",
    types={
        "t4": {
            1: "n1-standard-4+nvidia-tesla-t4*1",
            2: "n1-standard-8+nvidia-tesla-t4*2",
            4: "n1-standard-16+nvidia-tesla-t4*4",
        },
        "v100": {
            1: "n1-standard-8+nvidia-tesla-v100*1",
            2: "n1-standard-16+nvidia-tesla-v100*2",
            4: "n1-standard-32+nvidia-tesla-v100*4",
            8: "n1-standard-64+nvidia-tesla-v100*8",
        },
        "l4": {1: "g2-standard-4", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
        "a100": {
            1: "a2-highgpu-1g",
            2: "a2-highgpu-2g",
            4: "a2-highgpu-4g",
            8: "a2-highgpu-8g",
            16: "a2-megagpu-16g",
        },
        "h100": {1: "a3-highgpu-1g", 2: "a3-highgpu-2g", 4: "a3-highgpu-4g", 8: "a3-highgpu-8g"},
    },
    gone={
        "k80": ("t4", "Google Cloud has retired its machines with K80 GPUs"),
        "a10g": ("l4", "Google Cloud has no A10G GPUs"),
    },
    retired={},
)
"""The smallest type with that many GPUs, in CML's syntax `type+accelerator*number` where the GPU is
not part of the type. https://cloud.google.com/compute/docs/eol/k80-eol"""

ATTACHED: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "t4": ("nvidia-tesla-t4", (1, 2, 4)),
    "nvidia-tesla-t4-vws": ("nvidia-tesla-t4-vws", (1, 2, 4)),
    "nvidia-tesla-p4": ("nvidia-tesla-p4", (1, 2, 4)),
    "nvidia-tesla-p4-vws": ("nvidia-tesla-p4-vws", (1, 2, 4)),
    "nvidia-tesla-p100": ("nvidia-tesla-p100", (1, 2, 4)),
    "nvidia-tesla-p100-vws": ("nvidia-tesla-p100-vws", (1, 2, 4)),
    "v100": ("nvidia-tesla-v100", (1, 2, 4, 8)),
}
"""By word or name, the accelerators that a machine can be given, and how many.
https://cloud.google.com/compute/docs/gpus#n1-gpus"""
TAKES_GPUS = ("n1-", "custom-")
"""Families that take accelerators: N1, predefined and custom, without its shared-core types (whose
names begin otherwise). "GPUs are not compatible with other machine types."
https://cloud.google.com/compute/docs/gpus/about-gpus"""
OWN_GPUS: Mapping[str, tuple[str, ...]] = {
    "g2-": ("l4",),
    "a2-ultragpu-": ("nvidia-a100-80gb", "a100"),
    "a2-": ("a100",),
    "a3-ultragpu-": ("nvidia-h200-141gb",),
    "a3-megagpu-": ("nvidia-h100-mega-80gb", "h100"),
    "a3-": ("h100",),
    "a4-": ("nvidia-b200",),
    "a4x-": ("nvidia-gb200",),
    "g4-": ("nvidia-rtx-pro-6000",),
}
"""Words and names of the GPU that a family has built in; the first family that fits counts.
https://cloud.google.com/compute/docs/gpus#gpu-models"""
RETIRED_IMAGES = r"(projects/)?ubuntu-os-cloud/(global/images/family/)?ubuntu-(1\d|20)\d\d-lts.*"
"""Canonical's images for releases without standard support.
https://cloud.google.com/compute/docs/images/os-details#ubuntu_lts"""
WITH_GPU = ("a2-", "a3-", "a4-", "a4x-", "g2-", "g4-")
"""Families whose types have their GPUs built in."""
FIXED = (*WITH_GPU, "ct", "h4d-")
"""Families that cannot migrate to another host while they run; nor can bare metal.
https://cloud.google.com/compute/docs/instances/setting-vm-host-options"""
SPOT_ONLY = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g")
"""Types that Google sells as spot or flex-start machines only.
https://cloud.google.com/compute/docs/accelerator-optimized-machines#a3-high-vms"""
HYPERDISK = ("a3-ultragpu", "a4", "c4", "g4-", "h4d-", "m4-", "n4", "x4-")
"""Families that support no other disks; nor does bare metal.
https://cloud.google.com/compute/docs/disks/hyperdisks"""
ARM = ("t2a-", "c4a-", "n4a-", "a4x-")
"""Families with arm64 processors. https://cloud.google.com/compute/docs/instances/arm-on-compute"""

ARCHITECTURES: Mapping[str, str] = {"x64": "X86_64", "arm64": "ARM64"}
"""Ours -> Compute Engine's."""

CANONICAL = "ubuntu-os-cloud"
UBUNTU: Mapping[str, str] = {
    "x64": f"{CANONICAL}/ubuntu-2404-lts-amd64",
    "arm64": f"{CANONICAL}/ubuntu-2404-lts-arm64",
}
"""https://cloud.google.com/compute/docs/images/os-details: family of Canonical's Ubuntu 24.04."""
WITH_DRIVER = "deeplearning-platform-release/common-cu129-ubuntu-2404-nvidia-580"
"""Ubuntu 24.04 with NVIDIA's driver 580 (the last for V100), CUDA, Docker and the container
toolkit. https://cloud.google.com/deep-learning-vm/docs/images"""

SCOPES: Mapping[str, str] = {
    "bigquery": "bigquery",
    "cloud-platform": "cloud-platform",
    "cloud-source-repos": "source.full_control",
    "cloud-source-repos-ro": "source.read_only",
    "compute-ro": "compute.readonly",
    "compute-rw": "compute",
    "datastore": "datastore",
    "logging-write": "logging.write",
    "monitoring": "monitoring",
    "monitoring-read": "monitoring.read",
    "monitoring-write": "monitoring.write",
    "pubsub": "pubsub",
    "service-control": "servicecontrol",
    "service-management": "service.management.readonly",
    "sql": "sqlservice",
    "sql-admin": "sqlservice.admin",
    "storage-full": "devstorage.full_control",
    "storage-ro": "devstorage.read_only",
    "storage-rw": "devstorage.read_write",
    "taskqueue": "taskqueue",
    "trace": "trace.append",
    "useraccounts-ro": "cloud.useraccounts.readonly",
    "useraccounts-rw": "cloud.useraccounts",
    "userinfo-email": "userinfo.email",
}
"""gcloud's short words -> the last part of the scope's address.
https://cloud.google.com/sdk/gcloud/reference/compute/instances/create"""
SCOPE = "https://www.googleapis.com/auth/{}"
