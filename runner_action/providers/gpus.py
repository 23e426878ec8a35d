"""Words for GPUs, the same on every cloud with sizes: the type for `m+l4`, or for `m` with `l4:4`.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GPUS_OF_SIZE: Mapping[str, int] = {"m": 1, "l": 4, "xl": 8}
"""How many GPUs a size has, as in CML."""
OLDER_WORDS: Mapping[str, str] = {"tesla": "v100"}


@dataclass(frozen=True, kw_only=True)
class GpuTable:
    """A cloud's GPUs. `types`: the type by GPU and number of GPUs. `gone`: by GPU, the one that is
    used instead unless the user gives an image with a driver, and why."""

    cloud: str
    types: Mapping[str, Mapping[int, str]]
    gone: Mapping[str, tuple[str, str]]


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
    agree = not number or size == "m" or GPUS_OF_SIZE.get(size) == int(number)
    gpus = int(number or GPUS_OF_SIZE.get(size, 0)) if agree else 0
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
