"""Collects the inputs from their sources and converts them where possible.

The first source wins: flag, `INPUT_*` (GitHub action), `CML_RUNNER_*`, the schema's `x-env`. An
empty text counts as absent. Every value keeps the name of its source, for messages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner_action.files import ReadFile
from runner_action.inputs import proxies
from runner_action.inputs.conversion import convert
from runner_action.inputs.scripts import Unfit

Schema = Mapping[str, Any]


@cache
def schema() -> Schema:
    """The inputs' schema: inside the package in a wheel, in `schema/` in a checkout."""
    here = Path(__file__).parents[1]
    places = (here / "inputs.schema.json", here.parent / "schema" / "inputs.schema.json")
    file = next(place for place in places if place.exists())
    loaded: Schema = json.loads(file.read_text("utf-8"))
    return loaded


@dataclass(frozen=True)
class Given:
    """An input's value, converted where possible, and the flag, variable or input that it is
    from. `text`: as it was written; `unfit`: why the text cannot be used, as the end of a
    sentence."""

    value: Any
    source: str
    text: str = ""
    unfit: str = ""


@dataclass(frozen=True)
class Raw:
    """The inputs as texts: flags by input name, the environment, and what else is on the command
    line: unknown flags, and sentences about words that belong to no flag."""

    flags: Mapping[str, Sequence[str]]
    environ: Mapping[str, str]
    unknown: Sequence[str] = ()


def spellings(names: Collection[str] | None = None) -> set[str]:
    """All spellings of these inputs, or of all inputs."""
    properties = schema()["properties"]
    spelled = {*(properties if names is None else names)}
    for name in tuple(spelled):
        spelled |= {*properties[name].get("x-aliases", ())}
    return spelled


def command_of(raw: Raw) -> str:
    """The command. `parse` refuses any that the schema does not know."""
    prop = schema()["properties"]["command"]
    given = text_of("command", prop, raw)
    return given[0][-1] if given else str(prop["default"])


def secrets(raw: Raw, read_file: ReadFile) -> list[str]:
    """Every secret that was given, valid or not, as it was written and as it is converted: to be
    masked before anything is printed."""
    texts: list[str] = []
    for name, prop in schema()["properties"].items():
        if prop.get("writeOnly") and (given := text_of(name, prop, raw)):
            texts += [*given[0], str(convert(given[0], prop, read_file))]
    return list(dict.fromkeys(texts))


def collect(raw: Raw, read_file: ReadFile) -> Iterator[tuple[str, Given]]:
    """All inputs that were given, by name."""
    for name, prop in schema()["properties"].items():
        if given := text_of(name, prop, raw):
            texts, source = given
            text = ",".join(texts) if prop["type"] == "array" else texts[-1]
            if proxies.is_of_others(prop, source):
                if (usable := proxies.read(prop, text)) is not None:
                    yield name, Given(usable, source, text)
                continue
            try:
                yield name, Given(convert(texts, prop, read_file), source, text)
            except Unfit as error:
                yield name, Given("", source, text, unfit=str(error))


def variable_of(flag: str) -> str:
    return f"CML_RUNNER_{flag.upper().replace('-', '_')}"


def text_of(name: str, prop: Schema, raw: Raw) -> tuple[list[str], str] | None:
    """Texts and name of the first source that has an input. GitHub keeps the hyphens of an input's
    name in its variable."""
    absent = ("infer",) if prop.get("writeOnly") else ()  # CML's default
    spelled = (name, *prop.get("x-aliases", ()))
    for flag in spelled:
        texts = [text for text in raw.flags.get(flag, ()) if text.strip()]
        texts = texts if prop.get("x-lines") else [text.strip() for text in texts]
        texts = [text for text in texts if text not in absent]
        if texts:
            return texts, f"--{flag}"
    variables = [(f"INPUT_{name.upper()}", f"input {name}")]
    variables += [
        (variable, variable) for variable in (*map(variable_of, spelled), *prop.get("x-env", ()))
    ]
    for variable, source in variables:
        text = raw.environ.get(variable, "").strip()
        if text and text not in absent:
            return [text], source
    return None


def source_of_token(raw: Raw) -> str:
    """The variable that the token is from, if other programs read it too; otherwise empty."""
    prop = schema()["properties"]["token"]
    token = text_of("token", prop, raw)
    return token[1] if token and token[1] in prop["x-env"] else ""


def defaults() -> dict[str, Any]:
    return {name: prop.get("default") for name, prop in schema()["properties"].items()}
