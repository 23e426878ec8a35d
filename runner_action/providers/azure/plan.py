"""What the user's words mean at Azure. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re

from runner_action.errors import InputError
from runner_action.model import Place, Plan
from runner_action.providers.azure.requests import identities_of, own_tags
from runner_action.providers.azure.table import GPUS, REGIONS, TYPES, UBUNTU, WITH_DRIVER
from runner_action.providers.gpus import choose
from runner_action.request import CloudRequest, Spot

USER_DATA_LIMIT = 65535
"""Bytes of custom data before Base64. https://learn.microsoft.com/azure/virtual-machines/custom-data"""
SPOTS = {Spot.NEVER: (False,), Spot.ONLY: (True,), Spot.PREFER: (True, False)}
IMAGE = re.compile(r"[^:/]+:[^:/]+:[^:/]+:[^:/]+|/subscriptions/.+/providers/Microsoft\.Compute/(images|galleries)/.+|/(Shared|Community)Galleries/.+")


def plan(request: CloudRequest) -> Plan:
    """The request in Azure's words, with notes on what the user should know. Raises InputError with all problems."""
    problems: list[str] = []
    notes: dict[str, None] = {}
    places = [place for word in request.regions if (place := _place(word, problems))]
    types = [found for size in request.sizes if (found := _size(size, request, notes, problems))]
    architectures = {architecture_of(found) for found in types}
    if len(architectures) > 1:
        arm = [found for found in types if architecture_of(found) == "arm64"]
        problems.append(f"cloud-type lists sizes of two architectures; {', '.join(arm)} are arm64, the others x86-64; write those of one")
    if request.image and not IMAGE.fullmatch(request.image):
        wanted = f"write publisher:offer:sku:version, as in {UBUNTU['x64']}, or the id of an image of yours"
        problems.append(f"cloud-image {request.image} is no image of Azure; {wanted}")
    problems += own_tags(request.metadata)
    problems += identities_of(request.permission_set)[1]
    if problems:
        raise InputError(problems)
    architecture = architectures.pop()
    return Plan(
        places=tuple(dict.fromkeys(places)),
        instance_types=tuple(dict.fromkeys(types)),
        architecture=architecture,
        image=request.image or (WITH_DRIVER if any(map(has_gpu, types)) else UBUNTU[architecture]),
        disk_gb=request.disk_gb,
        spots=SPOTS[request.spot],
        spot_price=request.spot_price,
        notes=tuple(notes),
    )


def _place(word: str, problems: list[str]) -> Place | None:
    native = REGIONS.get(word, word)
    match = re.fullmatch(r"([a-z]+\d*)(?:-([1-3]))?", native)
    if not match:
        problems.append(f"cloud-region {word} is not a region or zone of Azure; write for example us-west, swedencentral or westeurope-2")
        return None
    return Place(region=match[1], zone=match[2])


def _size(word: str, request: CloudRequest, notes: dict[str, None], problems: list[str]) -> str | None:
    size, _, gpu = word.partition("+")
    gpu = gpu or request.gpu or ""
    return choose(size, gpu, GPUS, request.image is not None, notes, problems) if gpu else TYPES.get(size, size)


def architecture_of(size: str) -> str:
    """A `p` among the letters behind the number of CPUs stands for an Arm processor. https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions"""
    match = re.match(r"(?:Standard_|Basic_)?[A-Z]+\d+(?:-\d+)?([a-z]*)", size)
    return "arm64" if match and "p" in match[1] else "x64"


def has_gpu(size: str) -> bool:
    """NC, ND and NV are NVIDIA's, but for AMD's (…_v4 of NV, MI300X, V710)."""
    return bool(re.match(r"Standard_N[CDV]\d", size)) and not re.search(r"NV\d+as_v4|MI\d+X|V710", size)
