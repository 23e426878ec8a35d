"""From the user's inputs to a plan for Google Cloud. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re

from runner_action.model import Place, Plan
from runner_action.providers.draft import Draft, Notes
from runner_action.providers.gcp.options import options_of
from runner_action.providers.gcp.requests import account_of, has_gpu, own_labels
from runner_action.providers.gcp.table import (
    ARM,
    GPUS,
    REGIONS,
    SPOT_ONLY,
    TYPES,
    UBUNTU,
    WITH_DRIVER,
)
from runner_action.providers.gpus import choose
from runner_action.request import CloudRequest, Spot

USER_DATA_LIMIT = 256 * 1024 * 3 // 4
"""https://cloud.google.com/compute/docs/metadata/setting-custom-metadata: 256 KB a value, which
is Base64 here."""
IMAGE = re.compile(r"(projects/)?[a-z0-9.:-]+/(global/images/(family/)?)?[a-z0-9-]+")


def plan(request: CloudRequest) -> Plan:
    """The request in Google's terms, with notes for the user. Raises InputError with all
    problems."""
    draft = Draft(request, _place, _machine_type, architecture_of)
    if request.spot is Spot.NEVER:
        spot_only = [machine_type for machine_type in draft.types if machine_type in SPOT_ONLY]
        draft.problems += [
            f"cloud-type {machine_type} is available on Google Cloud as spot only; add cloud-spot,"
            " or write xl+h100, which has 8 GPUs"
            for machine_type in spot_only
        ]
    if (
        request.ssh_public_key
        and options_of(request).subnetwork
        and options_of(request).network == "default"
    ):
        draft.problems.append(
            "cloud-ssh-private with cloud-gcp-subnetwork needs cloud-gcp-network too: port 22 is"
            " opened in a network; write the subnetwork's"
        )
    if request.spot_price:
        draft.problems.append(
            "cloud-spot-price: Google Cloud's spot machines have no bidding price; leave it out"
        )
    if request.image and not IMAGE.fullmatch(request.image):
        instead = f"write project/family, as in {UBUNTU['x64']}, or project/global/images/name"
        draft.problems.append(f"cloud-image {request.image} is not a Google Cloud image; {instead}")
    draft.problems += own_labels(request.metadata)[1]
    draft.problems += account_of(request.permission_set)[1]
    return draft.plan(
        lambda architecture: WITH_DRIVER if any(map(has_gpu, draft.types)) else UBUNTU[architecture]
    )


def _place(word: str, problems: list[str]) -> Place | None:
    native = REGIONS.get(word, word)
    match = re.fullmatch(r"([a-z]+-[a-z]+\d+)(-[a-z])?", native)
    if not match:
        problems.append(
            f"cloud-region {word} is not a region or zone of Google Cloud; write for example"
            " us-west, europe-west4 or us-central1-a"
        )
        return None
    return Place(region=match[1], zone=native if match[2] else None)


def _machine_type(
    word: str, request: CloudRequest, notes: Notes, problems: list[str]
) -> str | None:
    size, _, gpu = word.partition("+")
    gpu = gpu or request.gpu or ""
    if not gpu:
        return TYPES.get(size, size)
    if "*" in gpu or "-" in gpu:  # CML's syntax for any type: accelerator and number
        kind, _, number = gpu.partition("*")
        if (
            size in TYPES
            or not re.fullmatch(r"[a-z][a-z0-9-]*", kind)
            or not (number or "1").isdigit()
        ):
            problems.append(
                f"cloud-type {word} does not exist at Google Cloud; write a type and its"
                " accelerators as in n1-standard-4+nvidia-tesla-t4*1"
            )
            return None
        return f"{size}+{kind}*{number or 1}"
    return choose(size, gpu, GPUS, request.image is not None, notes, problems)


def architecture_of(machine_type: str) -> str:
    return "arm64" if machine_type.startswith(ARM) else "x64"
