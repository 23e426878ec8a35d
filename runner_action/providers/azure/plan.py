"""From the user's inputs to a plan for Azure. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re

from runner_action.model import Place, Plan
from runner_action.providers.azure.requests import identities_of, own_tags
from runner_action.providers.azure.table import GPUS, REGIONS, TYPES, UBUNTU, WITH_DRIVER
from runner_action.providers.draft import Draft, Notes
from runner_action.providers.gpus import choose, retired, with_own_gpu, word_of
from runner_action.request import CloudRequest

USER_DATA_LIMIT = 65535
"""Bytes of custom data before Base64.
https://learn.microsoft.com/azure/virtual-machines/custom-data"""
IMAGE = re.compile(
    r"[^:/]+:[^:/]+:[^:/]+:[^:/]+|/subscriptions/.+/providers/Microsoft\.Compute/(images|galleries)/.+|/(Shared|Community)Galleries/.+"
)


def plan(request: CloudRequest) -> Plan:
    """The request in Azure's terms, with notes for the user. Raises InputError with all
    problems."""
    draft = Draft(request, _place, _size, architecture_of)
    if request.image and not IMAGE.fullmatch(request.image):
        instead = (
            f"write publisher:offer:sku:version, as in {UBUNTU['x64']}, or the id of your own image"
        )
        draft.problems.append(f"cloud-image {request.image} is not an Azure image; {instead}")
    draft.problems += own_tags(request.metadata)
    draft.problems += identities_of(request.permission_set)[1]
    return draft.plan(
        lambda architecture: (
            WITH_DRIVER if any(map(has_gpu, draft.types)) else UBUNTU[architecture]
        ),
        request.spot_price,
    )


def _place(word: str, problems: list[str]) -> Place | None:
    native = REGIONS.get(word, word)
    match = re.fullmatch(r"([a-z]+\d*)(?:-([1-3]))?", native)
    if not match:
        problems.append(
            f"cloud-region {word} is not a region or zone of Azure; write for example us-west,"
            " swedencentral or westeurope-2"
        )
        return None
    return Place(region=match[1], zone=match[2])


def _size(word: str, request: CloudRequest, notes: Notes, problems: list[str]) -> str | None:
    size, _, gpu = word.partition("+")
    gpu = word_of(gpu or request.gpu or "")
    if retired(size, GPUS, problems):
        return None
    if not gpu:
        return TYPES.get(size, size)
    if size.startswith(("Standard_", "Basic_")):
        return with_own_gpu(size, gpu, _own_gpu(size), problems)
    return choose(size, gpu, GPUS, request.image is not None, notes, problems)


def _own_gpu(size: str) -> list[str] | None:
    """Words for the GPU that a size's name contains; None if it has none.
    https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions"""
    words = [kind for kind in GPUS.types if f"_{kind.upper()}_" in size]
    return words if words or has_gpu(size) else None


def architecture_of(size: str) -> str:
    """A `p` among the letters behind the number of CPUs stands for an Arm processor.
    https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions"""
    match = re.match(r"(?:Standard_|Basic_)?[A-Z]+\d+(?:-\d+)?([a-z]*)", size)
    return "arm64" if match and "p" in match[1] else "x64"


def has_gpu(size: str) -> bool:
    """NC, ND and NV have NVIDIA's GPUs, except those with AMD's (NV…as_v4, MI300X, V710)."""
    return bool(re.match(r"Standard_N[CDV]\d", size)) and not re.search(
        r"NV\d+as_v4|MI\d+X|V710", size
    )
