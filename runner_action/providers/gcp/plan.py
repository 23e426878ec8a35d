"""From the user's inputs to a plan for Google Cloud. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re

from runner_action.model import Place, Plan
from runner_action.providers.draft import Draft, Notes
from runner_action.providers.gcp.options import options_of
from runner_action.providers.gcp.requests import account_of, has_gpu, own_labels
from runner_action.providers.gcp.table import (
    ARM,
    ATTACHED,
    GPUS,
    OWN_GPUS,
    REGIONS,
    RETIRED_IMAGES,
    SPOT_ONLY,
    TAKES_GPUS,
    TYPES,
    UBUNTU,
    WITH_DRIVER,
)
from runner_action.providers.gpus import OLDER_WORDS, choose, with_own_gpu, word_of
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
    elif request.image and re.fullmatch(RETIRED_IMAGES, request.image):
        draft.problems.append(
            f"cloud-image {request.image} is no longer supported; leave it out, or write"
            f" {UBUNTU['x64']}"
        )
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
    gpu = word_of(gpu or request.gpu or "")
    if not gpu:
        return TYPES.get(size, size)
    if size in TYPES:
        return choose(size, gpu, GPUS, request.image is not None, notes, problems)
    if size.startswith(TAKES_GPUS):
        return _with_accelerator(size, gpu, notes, problems)
    own = next((words for family, words in OWN_GPUS.items() if size.startswith(family)), None)
    if own is None:
        problems.append(
            f"cloud-type {size} cannot have a GPU: Google Cloud adds GPUs to N1 types only, such as"
            f" n1-standard-4; or write cloud-type `m` for a machine with {gpu}"
        )
        return None
    return with_own_gpu(size, gpu, own, problems)


def _with_accelerator(machine_type: str, gpu: str, notes: Notes, problems: list[str]) -> str | None:
    """A type and its accelerators, as in `n1-standard-4+nvidia-tesla-t4*1`; None, with the problem
    added to `problems`, if there is no such thing."""
    word, _, number = gpu.partition(":")
    kind = OLDER_WORDS.get(word, word)
    if kind in GPUS.gone and GPUS.gone[kind][0] in ATTACHED:
        kind, why = GPUS.gone[kind]
        notes[f"{why}; taking `{kind}` in place of `{word}`"] = None
    name, numbers = ATTACHED.get(kind, ("", ()))
    if (number or "1") in map(str, numbers):
        return f"{machine_type}+{name}*{number or 1}"
    kinds = ", ".join(ATTACHED)
    instead = f"write 1 to {max(numbers)} of them" if numbers else f"it can have {kinds}"
    problems.append(
        f"cloud-type {machine_type} cannot have {gpu}; {instead}, as in"
        " n1-standard-4+nvidia-tesla-t4*1, or write cloud-type `m`, which chooses the machine"
    )
    return None


def architecture_of(machine_type: str) -> str:
    return "arm64" if machine_type.startswith(ARM) else "x64"
