"""What the user gave, from whichever source: each input's text, converted where that can be done.

Sources, first wins: flag, `INPUT_*` (GitHub action), `CML_RUNNER_*`, the schema's `x-env`. An
empty text is absent. Every value keeps the name under which the user gave it, for the messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner_action.inputs.conversion import convert

Schema = Mapping[str, Any]


@cache
def schema() -> Schema:
    """The inputs schema: beside the package in a wheel, in `schema/` in a checkout."""
    here = Path(__file__).parents[1]
    places = (here / "inputs.schema.json", here.parent / "schema" / "inputs.schema.json")
    loaded: Schema = json.loads(
        next(place for place in places if place.exists()).read_text("utf-8")
    )
    return loaded


@dataclass(frozen=True)
class Given:
    """A value as the user gave it: converted where that was possible, and under which name it
    came."""

    value: Any
    source: str


@dataclass(frozen=True)
class Raw:
    """Everything the user said, unconverted: flags by input name, the environment, and what was
    not understood."""

    flags: Mapping[str, Sequence[str]]
    environ: Mapping[str, str]
    unknown: Sequence[str] = ()


def spellings(names: Collection[str] | None = None) -> set[str]:
    """All names of these inputs, or of all."""
    properties = schema()["properties"]
    spelled = {*(properties if names is None else names)}
    for name in tuple(spelled):
        spelled |= {*properties[name].get("x-aliases", ())}
    return spelled


def command_of(raw: Raw) -> str:
    """One of the schema's; `parse` refuses anything else."""
    prop = schema()["properties"]["command"]
    given = text_of("command", prop, raw)
    return given[0][-1] if given else str(prop["default"])


def secrets(raw: Raw) -> list[str]:
    """Every secret the user gave, valid or not, as it was written and as it was read: to be
    masked before anything is said."""
    found: dict[str, None] = {}
    for name, prop in schema()["properties"].items():
        if prop.get("writeOnly") and (given := text_of(name, prop, raw)):
            found |= dict.fromkeys([*given[0], str(convert(given[0], prop, lambda _: None))])
    return list(found)


def collect(raw: Raw, read_file: Callable[[str], str | None]) -> Iterator[tuple[str, Given]]:
    for name, prop in schema()["properties"].items():
        found = text_of(name, prop, raw)
        if found:
            yield name, Given(convert(found[0], prop, read_file), found[1])


def text_of(name: str, prop: Schema, raw: Raw) -> tuple[list[str], str] | None:
    """The first source that says something about an input. GitHub keeps the hyphens of an
    input's name in its variable."""
    absent = ("infer",) if prop.get("writeOnly") else ()  # the word of CML's default
    for flag in (name, *prop.get("x-aliases", ())):
        texts = [text for text in raw.flags.get(flag, ()) if text and text not in absent]
        if texts:
            return texts, f"--{flag}"
    variables = [(f"INPUT_{name.upper()}", f"input {name}")]
    variables += [
        (variable, variable)
        for variable in (f"CML_RUNNER_{name.upper().replace('-', '_')}", *prop.get("x-env", ()))
    ]
    for variable, source in variables:
        text = raw.environ.get(variable, "").strip()
        if text and text not in absent:
            return [text], source
    return None


def source_of_token(raw: Raw) -> str:
    """The variable that it comes from, if that is not ours alone; else empty."""
    prop = schema()["properties"]["token"]
    token = text_of("token", prop, raw)
    return token[1] if token and token[1] in prop["x-env"] else ""


def defaults() -> dict[str, Any]:
    return {name: prop.get("default") for name, prop in schema()["properties"].items()}
