"""From the user's inputs to a plan for AWS. Pure: no network, no clock, no SDK."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner_action.model import Place, Plan
from runner_action.providers.aws.options import options_of
from runner_action.providers.aws.table import (
    ARCHITECTURES,
    DRIVEN,
    GPUS,
    REGIONS,
    TYPES,
    UBUNTU,
    UNDRIVEN,
    WITH_DRIVER,
)
from runner_action.providers.draft import Draft, Notes
from runner_action.providers.gpus import choose, retired, with_own_gpu, word_of
from runner_action.request import CloudRequest

USER_DATA_LIMIT = 16 * 1024
"""https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html: 16 KB before Base64."""
LEAST_PRICE = 0.001
"""USD an hour. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SpotMarketOptions.html"""
TAGS_OF_USER = 40
"""https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html: of 50 a resource, ten are
reserved for ours."""


def plan(request: CloudRequest) -> Plan:
    """The request in AWS's terms, with notes for the user. Raises InputError with all
    problems."""
    draft = Draft(request, _place, _instance_type, architecture_of)
    draft.problems += _limits(request)
    return draft.plan(lambda architecture: _image(draft, architecture), request.spot_price)


def _place(word: str, problems: list[str]) -> Place | None:
    native = REGIONS.get(word, word)
    match = re.fullmatch(
        r"([a-z]+(?:-[a-z]+)+-\d+)([a-z]|-[a-z0-9-]+)?", native
    )  # a local zone is us-west-2-lax-1a
    if not match:
        problems.append(
            f"cloud-region {word} is not a region or zone of AWS; write for example us-west or"
            " eu-central-1"
        )
        return None
    return Place(region=match[1], zone=native if match[2] else None)


def _instance_type(
    word: str, request: CloudRequest, notes: Notes, problems: list[str]
) -> str | None:
    size, _, gpu = word.partition("+")
    gpu = word_of(gpu or request.gpu or "")
    if retired(size, GPUS, problems):
        return None
    if not gpu:
        return TYPES.get(size, size)
    if "." in size:
        return with_own_gpu(size, gpu, _own_gpu(size), problems)
    return choose(size, gpu, GPUS, request.image is not None, notes, problems)


def _own_gpu(instance_type: str) -> list[str] | None:
    """Words for the GPU of a type, by its family; None if it has none."""
    family = instance_type.partition(".")[0]
    words = [
        kind
        for kind, types in GPUS.types.items()
        if family in (known.partition(".")[0] for known in types.values())
    ]
    return words if words or family in DRIVEN | UNDRIVEN else None


def _image(draft: Draft, architecture: str) -> str:
    families = {instance_type.partition(".")[0] for instance_type in draft.types}
    if driverless := families & UNDRIVEN:
        draft.notes[
            f"no image of AWS has a driver for the GPU of {', '.join(sorted(driverless))}; give a"
            " `cloud-image` that has one"
        ] = None
    return (
        WITH_DRIVER[architecture]
        if families & DRIVEN
        else UBUNTU.format(ARCHITECTURES[architecture][0])
    )


def _limits(request: CloudRequest) -> Iterator[str]:
    if len(request.metadata) > TAGS_OF_USER:
        yield (
            f"cloud-metadata has {len(request.metadata)} pairs; AWS takes {TAGS_OF_USER} in"
            " addition to those of cml-runner"
        )
    if request.spot_price and request.spot_price < LEAST_PRICE:
        yield (
            f"cloud-spot-price {request.spot_price:g} is below what EC2 takes; write at least"
            f" {LEAST_PRICE}, or leave it out"
        )
    aws = options_of(request)
    if aws.hdd_iops and aws.hdd_iops > max(3000, 500 * request.disk_gb):
        yield (
            f"cloud-aws-hdd-iops {aws.hdd_iops} is more than 500 a GB; write at most"
            f" {500 * request.disk_gb}, or a larger `cloud-hdd-size`"
        )
    if aws.hdd_throughput and aws.hdd_throughput * 4 > (aws.hdd_iops or 3000):
        yield (
            f"cloud-aws-hdd-throughput {aws.hdd_throughput} needs `cloud-aws-hdd-iops` of at least"
            f" {aws.hdd_throughput * 4}"
        )
    regions = {place.region for word in request.regions if (place := _place(word, []))}
    if aws.subnets and len(regions) > 1:
        yield (
            "cloud-aws-subnet belongs to one region, but cloud-region lists"
            f" {', '.join(sorted(regions))}; write one of them"
        )


def architecture_of(instance_type: str) -> str:
    """`arm64` or `x64` from the type's own name: a `g` among the letters behind the generation
    means Graviton.

    https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
    """
    match = re.match(r"[a-z]+\d+([a-z]*)", instance_type)
    graviton = instance_type.startswith(("a1.", "p6e-gb")) or (match and "g" in match[1])
    return "arm64" if graviton else "x64"
