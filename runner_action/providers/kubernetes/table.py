"""What the user's words stand for in a cluster: data, with its sources.

Sizes: CML's (terraform-provider-iterative, its table of limits). Labels of nodes are those of the
vendors' node pools, NVIDIA's feature discovery and Karpenter; a cluster has some of them, and any
of these decides.
"""

from __future__ import annotations

from collections.abc import Mapping

SHARED = "shared"
SIZES: Mapping[str, tuple[int, int]] = {
    SHARED: (8, 32),
    "s": (1, 1),
    "m": (8, 32),
    "l": (32, 128),
    "xl": (64, 256),
}
"""CPUs and GiB. CML's, and `shared`, the default without a GPU, of which little is requested."""

GPU_SIZES: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "": {"m": (4, 16, 1), "l": (32, 128, 4), "xl": (64, 256, 8)},
    "k80": {"m": (4, 64, 1), "l": (32, 512, 8), "xl": (64, 768, 16)},
    "v100": {"m": (8, 64, 1), "l": (32, 256, 4), "xl": (64, 512, 8)},
}
"""CPUs, GiB and GPUs; for K80 and V100 CML's, for others those of the clouds' machines with such
GPUs."""

CPU_SHARE, MEMORY_SHARE = 0.85, 0.75
"""The share of a size that is requested; the whole is the limit. A node with that many CPUs and GiB
reserves some for itself (GKE a tenth of 32 GiB, a fifth of 16) and runs other pods, so that the
whole would never fit."""
SHARED_SHARES = 1 / 8, 1 / 16
"""Of the CPUs and the memory of `shared`: 1 CPU and 2 GiB, which fit a node of 2 CPUs and 4 GiB
beside the cluster's own pods."""
LITTLE: Mapping[str, str] = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "1G"}
"""What a runner needs whose jobs are in other containers."""
DISK_NOT_ASKED, SMALL_DISK_GB = 35, 8
"""Up to the default size of a disk, no more than this is requested: nodes may have 20 GB only."""

GPU_RESOURCE = "nvidia.com/gpu"
OLD_LABEL = "accelerator"
"""CML's."""
MODEL_LABELS = (
    *("karpenter.k8s.aws/instance-gpu-name", "eks.amazonaws.com/instance-gpu-name"),
    *(
        "cloud.google.com/gke-accelerator",
        "k8s.amazonaws.com/accelerator",
        "karpenter.azure.com/sku-gpu-name",
        "gpu.nvidia.com/class",
    ),
    *("nvidia.com/gpu.product", OLD_LABEL),
)
"""Karpenter uses the first term that it can satisfy, so its own come first. NVIDIA's is set after
a node has started, so that no autoscaler knows it."""
MODELS: Mapping[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "t4": (("nvidia-tesla-t4",), "t4", ("Tesla-T4",)),
    "l4": (("nvidia-l4",), "l4", ("NVIDIA-L4",)),
    "a10g": (("nvidia-a10g",), "a10g", ("NVIDIA-A10G",)),
    "a100": (
        ("nvidia-tesla-a100", "nvidia-a100-80gb"),
        "a100",
        (
            "NVIDIA-A100-SXM4-40GB",
            "NVIDIA-A100-SXM4-80GB",
            "NVIDIA-A100-PCIE-40GB",
            "NVIDIA-A100-80GB-PCIe",
            "NVIDIA-A100-PCIE-80GB",
        ),
    ),
    "h100": (
        ("nvidia-h100-80gb", "nvidia-h100-mega-80gb"),
        "h100",
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"),
    ),
    "v100": (
        ("nvidia-tesla-v100",),
        "v100",
        (
            "Tesla-V100-SXM2-16GB",
            "Tesla-V100-SXM2-32GB",
            "Tesla-V100-SXM3-32GB",
            "Tesla-V100-PCIE-16GB",
            "Tesla-V100-PCIE-32GB",
            "Tesla-V100S-PCIE-32GB",
        ),
    ),
    "k80": (("nvidia-tesla-k80",), "k80", ("Tesla-K80",)),
}
"""Google's names, Karpenter's, and NVIDIA's (nvidia-smi's with hyphens)."""

SPOT_LABELS: Mapping[str, str] = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "capacityType": "SPOT",
}
"""Any of these marks a node that its cloud may take back. GKE, EKS, Karpenter, AKS; and the name
under which the cluster autoscaler knows it of a managed node group of EKS that is empty.
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/aws_wrapper.go"""
SPOT_TAINTS: Mapping[str, str] = {
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
GPU_TAINTS = ("nvidia.com/gpu", "sku")
"""Keys of the taints that keep other pods off nodes with GPUs: the usual one, of GKE and Karpenter,
and `sku=gpu` of AKS."""

UNDISTURBED: Mapping[str, str] = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
"""Annotations of a pod that no autoscaler moves to save a node.
https://karpenter.sh/docs/concepts/disruption/#pod-level-controls and
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md"""
NOT_INJECTED: Mapping[str, Mapping[str, str]] = {
    "labels": {
        "sidecar.istio.io/inject": "false",
        "kuma.io/sidecar-injection": "disabled",
        "admission.datadoghq.com/enabled": "false",
    },
    "annotations": {
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
        "consul.hashicorp.com/connect-inject": "false",
    },
}
"""With these, webhooks add no containers to a pod. Vault's adds them only where it is asked to.
https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/,
https://linkerd.io/2/features/proxy-injection/,
https://kuma.io/docs/latest/production/dp-config/dpp-on-kubernetes/,
https://developer.hashicorp.com/consul/docs/reference/k8s/annotation-label,
https://docs.datadoghq.com/containers/cluster_agent/admission_controller/"""

CLAIM_TEMPLATE = "resourceclaimtemplate/"
"""As kubectl names an object, before the name of a ResourceClaimTemplate.
https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/"""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""https://kueue.sigs.k8s.io/docs/reference/labels-and-annotations/"""

ARCHITECTURES: Mapping[str, str] = {"x64": "amd64", "arm64": "arm64"}
"""Ours -> Go's."""
GENERIC_REGIONS = ("us-west", "us-east", "eu-west", "eu-north")
"""Words for clouds, without a meaning for a cluster."""
IMAGE = ""
GPU_IMAGE = ""
"""Our images (image/runner.Dockerfile), by digest. The release writes them (image/release.py): a
checkout has none, since a bare name could be registered by others, whose image would get the
token."""
DOCKER_IMAGE = (
    "docker:28-dind@sha256:2a232a42256f70d78e3cc5d2b5d6b3276710a0de0596c145f627ecfae90282ac"
)
"""Privileged in its pod. image/images.Dockerfile has it too, so that bots can update the digest."""
