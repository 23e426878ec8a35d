"""Words for GPUs, the same on every cloud with sizes: the type for `m+l4`, or for `m` with `l4:4`.
Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GPUS_OF_SIZE: Mapping[str, int] = {"m": 1, "l": 4, "xl": 8}
"""How many GPUs a size has, as in CML."""
OLDER_WORDS: Mapping[str, str] = {"tesla": "v100"}
ACCELERATORS: Mapping[str, str] = {
    "nvidia-tesla-t4": "t4",
    "nvidia-tesla-v100": "v100",
    "nvidia-tesla-k80": "k80",
    "nvidia-tesla-a100": "a100",
    "nvidia-l4": "l4",
    "nvidia-a10g": "a10g",
    "nvidia-h100-80gb": "h100",
}
"""The longer names of CML's documents, which are Google's, as the words of every cloud.
https://cloud.google.com/compute/docs/gpus"""


@dataclass(frozen=True, kw_only=True)
class GpuTable:
    """A cloud's GPUs. `types`: the type by GPU and number of GPUs. `gone`: by GPU, the one that is
    used instead unless the user gives an image with a driver, and why. `retired`: by a regular
    expression for the cloud's own types, why these are gone, and the type to write instead."""

    cloud: str
    types: Mapping[str, Mapping[int, str]]
    gone: Mapping[str, tuple[str, str]]
    retired: Mapping[str, tuple[str, str]]


def word_of(gpu: str) -> str:
    """A GPU as its word and number: `t4:2` for `NVIDIA-Tesla-T4*2`. A resource of Kubernetes, and a
    name without a word, stay."""
    name, _, number = gpu.replace("*", ":").partition(":")
    if "/" not in name:
        name = ACCELERATORS.get(name.lower(), name.lower())
    return f"{name}:{number}" if number else name


def retired(native: str, table: GpuTable, problems: list[str]) -> bool:
    """Whether the cloud no longer has a type; if so, the problem is added to `problems`."""
    for pattern, (why, instead) in table.retired.items():
        if re.fullmatch(pattern, native):
            problems.append(f"cloud-type {native}: {why}; write {instead}")
            return True
    return False


def with_own_gpu(
    native: str, gpu: str, own: Sequence[str] | None, problems: list[str]
) -> str | None:
    """A type of the cloud beside a GPU word: the type, if it has this GPU; None, with the problem
    added to `problems`, otherwise. `own`: words for the GPU that the type has; None for no GPU,
    empty for one without a word."""
    kind = gpu.partition(":")[0]
    if own is None:
        problems.append(
            f"cloud-type {native} has no GPU: leave cloud-gpu out, or write cloud-type `m` for a"
            f" machine with {kind}"
        )
        return None
    if kind in own:
        return native
    which = f" ({own[0]})" if own else ""
    problems.append(
        f"cloud-type {native} has a GPU of its own{which}, so leave cloud-gpu {gpu} out"
    )
    return None


def choose(
    size: str,
    gpu: str,
    table: GpuTable,
    with_image: bool,
    notes: dict[str, None],
    problems: list[str],
) -> str | None:
    """The type for a size and a GPU word, with notes for the user; None, with the problem added to
    `problems`, if there is none."""
    word, _, number = gpu.partition(":")
    kind = OLDER_WORDS.get(word, word)
    if kind in table.gone and (kind not in table.types or not with_image):
        kind, why = table.gone[kind]
        notes[f"{why}; taking `{kind}` in place of `{word}`"] = None
    elif word != kind:
        notes[f"GPU `{word}` means `{kind}`"] = None
    counts = table.types.get(kind, {})
    # `m` is the default: with it, the number alone decides.
    usual = GPUS_OF_SIZE.get(size, 0)
    agree = not number or (number.isdecimal() and (size == "m" or usual == int(number)))
    gpus = int(number or usual) if agree else 0
    if gpus in counts:
        return counts[gpus]
    words = ", ".join(f"`{size}+{kind}`" for size, count in GPUS_OF_SIZE.items() if count in counts)
    have = (
        f"{table.cloud} has {kind} by {', '.join(map(str, counts))}: write {words}, or `m` with a"
        f" number as in `{kind}:{max(counts)}`"
        if counts
        else ""
    )
    problems.append(
        f"cloud-type {size}+{gpu} does not exist on {table.cloud};"
        f" {have or 'write one of ' + ', '.join(table.types)}"
    )
    return None
