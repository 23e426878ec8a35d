"""GPU words, the same on every cloud that has sizes: which of its types is meant by `m+l4`, or
by `m` with `l4:4`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GPUS_OF_SIZE: Mapping[str, int] = {"m": 1, "l": 4, "xl": 8}
"""How many GPUs a size has, as in CML."""
OLDER_WORDS: Mapping[str, str] = {"tesla": "v100"}


@dataclass(frozen=True, kw_only=True)
class GpuTable:
    """A cloud's GPUs. `types`: GPU -> number of them -> type. `gone`: GPU -> what is taken
    instead, unless an image that drives it is given, and why."""

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
    """The type for a size and a GPU word, with what the user should know in `notes`; None, and
    why in `problems`, if there is none."""
    asked, _, number = gpu.partition(":")
    kind = OLDER_WORDS.get(asked, asked)
    if kind in table.gone and (kind not in table.types or not with_image):
        kind, why = table.gone[kind]
        notes[f"{why}; taking `{kind}` in place of `{asked}`"] = None
    elif asked != kind:
        notes[f"GPU `{asked}` means `{kind}`"] = None
    counts = table.types.get(kind, {})
    # `m` is what nobody had to write: there a number says all.
    agree = not number or size == "m" or GPUS_OF_SIZE.get(size) == int(number)
    wanted = int(number or GPUS_OF_SIZE.get(size, 0)) if agree else 0
    if wanted in counts:
        return counts[wanted]
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
