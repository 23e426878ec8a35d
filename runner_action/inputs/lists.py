"""Lists as people write them: with commas, on lines, in brackets, as JSON or as YAML. Pure."""

from __future__ import annotations

import json
import re

from runner_action.typography import typed, unquoted

_DASHED = re.compile(r"^\s*-\s+")


def items_of(text: str, separator: str, *, free: bool) -> list[str]:
    """The items of a list, without quotes. `separator`: a regular expression; `free`: the items
    may have any characters, which then stay as they are."""
    clean = unquoted if free else typed
    items = _json(text)
    if items is None:
        bare = unquoted(text)
        if bare.startswith("[") and bare.endswith("]"):
            bare = bare[1:-1].strip()
        items = re.split(separator, _without_dashes(bare))
    return list(filter(None, map(clean, items)))


def _json(text: str) -> list[str] | None:
    """The items of a list of texts and numbers in JSON; None if it is not such a list."""
    if not text.strip().startswith("["):
        return None
    try:
        items = json.loads(text)
    except ValueError:
        return None
    if not all(isinstance(item, str | int | float) for item in items):
        return None
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _without_dashes(text: str) -> str:
    """Lines that all begin with a hyphen and a space are a list in YAML."""
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and all(map(_DASHED.match, lines)):
        return "\n".join(_DASHED.sub("", line) for line in lines)
    return text
