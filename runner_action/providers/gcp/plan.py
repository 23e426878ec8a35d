"""What the user's words mean at Google Cloud. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re

from runner_action.errors import InputError
from runner_action.model import Place, Plan
from runner_action.providers.gcp.requests import account_of, has_gpu, own_labels
from runner_action.providers.gcp.table import ARM, GPUS, REGIONS, SPOT_ONLY, TYPES, UBUNTU, WITH_DRIVER
from runner_action.providers.gpus import choose
from runner_action.request import CloudRequest, Spot

USER_DATA_LIMIT = 256 * 1024 * 3 // 4
"""https://cloud.google.com/compute/docs/metadata/setting-custom-metadata: 256 KB a value, which is Base64 here."""
IMAGE = re.compile(r"(projects/)?[a-z0-9.:-]+/(global/images/(family/)?)?[a-z0-9-]+")
SPOTS = {Spot.NEVER: (False,), Spot.ONLY: (True,), Spot.PREFER: (True, False)}


def plan(request: CloudRequest) -> Plan:
    """The request in Google's words, with notes on what the user should know. Raises InputError with all problems."""
    problems: list[str] = []
    notes: dict[str, None] = {}
    places = [place for word in request.regions if (place := _place(word, problems))]
    types = [found for size in request.sizes if (found := _machine_type(size, request, notes, problems))]
    architectures = {architecture_of(found) for found in types}
    if len(architectures) > 1:
        arm = [found for found in types if architecture_of(found) == "arm64"]
        problems.append(f"cloud-type lists types of two architectures; {', '.join(arm)} are arm64, the others x86-64; write those of one")
    if request.spot is Spot.NEVER:
        sold = [found for found in types if found in SPOT_ONLY]
        problems += [f"cloud-type {found} is sold by Google Cloud as spot only; add cloud-spot, or write xl+h100, which has 8 GPUs" for found in sold]
    if request.ssh_public_key and request.gcp.subnetwork and request.gcp.network == "default":
        problems.append("cloud-ssh-private with cloud-gcp-subnetwork needs cloud-gcp-network too: port 22 is opened in a network; write the subnetwork's")
    if request.spot_price:
        problems.append("cloud-spot-price: Google Cloud's spot machines have no bidding price; leave it out")
    if request.image and not IMAGE.fullmatch(request.image):
        wanted = f"write project/family, as in {UBUNTU['x64']}, or project/global/images/name"
        problems.append(f"cloud-image {request.image} is no image of Google Cloud; {wanted}")
    problems += own_labels(request.metadata)[1]
    problems += account_of(request.permission_set)[1]
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
        spot_price=None,
        notes=tuple(notes),
    )


def _place(word: str, problems: list[str]) -> Place | None:
    native = REGIONS.get(word, word)
    match = re.fullmatch(r"([a-z]+-[a-z]+\d+)(-[a-z])?", native)
    if not match:
        problems.append(f"cloud-region {word} is not a region or zone of Google Cloud; write for example us-west, europe-west4 or us-central1-a")
        return None
    return Place(region=match[1], zone=native if match[2] else None)


def _machine_type(word: str, request: CloudRequest, notes: dict[str, None], problems: list[str]) -> str | None:
    size, _, gpu = word.partition("+")
    gpu = gpu or request.gpu or ""
    if not gpu:
        return TYPES.get(size, size)
    if "*" in gpu or "-" in gpu:  # CML's syntax for any type: its accelerator, and their number
        kind, _, number = gpu.partition("*")
        if size in TYPES or not re.fullmatch(r"[a-z][a-z0-9-]*", kind) or not (number or "1").isdigit():
            problems.append(f"cloud-type {word} does not exist at Google Cloud; write a type and its accelerators as in n1-standard-4+nvidia-tesla-t4*1")
            return None
        return f"{size}+{kind}*{number or 1}"
    return choose(size, gpu, GPUS, request.image is not None, notes, problems)


def architecture_of(machine_type: str) -> str:
    return "arm64" if machine_type.startswith(ARM) else "x64"
