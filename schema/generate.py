"""Generates blocks of other files from inputs.schema.json.

    python schema/generate.py            writes them
    python schema/generate.py --check    prints what is stale and exits with 1

A block begins with a line that contains `generated from schema/inputs.schema.json: NAME` and ends
with a line that contains `end of NAME`. The function of that name below generates its content.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILES = (
    "action.yml",
    "gitlab-component/templates/launch-runner.yml",
    "gitlab-component/README.md",
    "README.md",
)
Schema = Mapping[str, Any]
BLOCK = re.compile(
    r"(?P<begin>^[^\n]*generated from schema/inputs\.schema\.json:"
    r" (?P<name>[a-z-]+)[^\n]*\n)(?P<body>.*?)(?P<end>^[^\n]*end of (?P=name)[^\n]*$)",
    re.M | re.S,
)


def render(schema: Schema, text: str) -> str:
    """The text with all blocks generated again. Raises KeyError for an unknown name."""

    def block(match: re.Match[str]) -> str:
        return match["begin"] + BLOCKS[match["name"]](schema) + match["end"]

    return BLOCK.sub(block, text)


def default_of(prop: Schema) -> str:
    """The default as a person would write it; empty if there is none."""
    default = prop.get("default")
    if default is None or default == []:
        return ""
    if isinstance(default, list):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def choices_of(prop: Schema) -> list[str]:
    """The values to choose from, as a person would write them."""
    return [str(word).lower() for word in prop.get("enum", ())]


def described(prop: Schema) -> str:
    """The description, with choices and default."""
    text = str(prop["description"])
    if choices := choices_of(prop):
        text += f" One of {', '.join(choices)}."
    return text + (f" Default: {default_of(prop)}." if default_of(prop) else "")


def action_inputs(schema: Schema) -> str:
    """Without `default:` keys: an input with a default would look as if it was given, and hide a
    variable."""
    lines = []
    for name, prop in schema["properties"].items():
        lines += [
            f"  {name}:",
            f"    description: {json.dumps(described(prop), ensure_ascii=False)}",
            "    required: false",
        ]
    return "\n".join(lines) + "\n"


def action_outputs(schema: Schema) -> str:
    lines = []
    for name, prop in schema["$defs"]["outputs"]["properties"].items():
        lines += [
            f"  {name}:",
            f"    description: {json.dumps(prop['description'], ensure_ascii=False)}",
        ]
    return "\n".join(lines) + "\n"


def component_properties(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Inputs of the component. Secrets are masked variables instead, because GitLab shows inputs in
    its logs. The template sets the command itself."""
    return (
        (name, prop)
        for name, prop in schema["properties"].items()
        if not prop.get("writeOnly") and prop["x-group"] != "Command"
    )


def component_inputs(schema: Schema) -> str:
    """All are strings, and an empty one counts as absent, as everywhere: a default here would hide
    a variable."""
    lines = []
    for name, prop in component_properties(schema):
        lines += [
            f"    {name}:",
            f"      description: {json.dumps(described(prop), ensure_ascii=False)}",
        ]
        if choices := choices_of(prop):
            lines.append(f"      options: {json.dumps(['', *choices])}")
        elif prop["type"] == "boolean":
            lines.append('      options: ["", "true", "false"]')
        lines.append('      default: ""')
    return "\n".join(lines) + "\n"


def component_variables(schema: Schema) -> str:
    """GitLab and its runner replace variables in the values, except in texts with a `$` of their
    own. https://docs.gitlab.com/ci/yaml/#variablesexpand"""
    lines = []
    for name, prop in component_properties(schema):
        value = f'"$[[ inputs.{name} ]]"'
        if prop.get("x-verbatim"):
            value = f"{{value: {value}, expand: false}}"
        lines.append(f"    CML_RUNNER_{name.upper().replace('-', '_')}: {value}\n")
    return "".join(lines)


def readme_inputs(schema: Schema) -> str:
    return tables(schema["properties"].items())


def component_table(schema: Schema) -> str:
    return tables(component_properties(schema))


def tables(properties: Iterable[tuple[str, Schema]]) -> str:
    """A table for each group of inputs."""
    groups: dict[str, list[str]] = {}
    for name, prop in properties:
        choices = (
            f" One of {', '.join(f'`{word}`' for word in choices_of(prop))}."
            if "enum" in prop
            else ""
        )
        default = f"`{default_of(prop)}`" if default_of(prop) else ""
        row = f"| `{name}` | {default} | {_cell(prop['description'] + choices)} |"
        groups.setdefault(prop["x-group"], []).append(row)
    head = "| input | default | |\n| --- | --- | --- |\n"
    return (
        "\n"
        + "\n".join(
            f"**{group}**\n\n{head}" + "\n".join(rows) + "\n" for group, rows in groups.items()
        )
        + "\n"
    )


def readme_outputs(schema: Schema) -> str:
    rows = (
        f"| `{name}` | {_cell(prop['description'])} |"
        for name, prop in schema["$defs"]["outputs"]["properties"].items()
    )
    return "\n| output | |\n| --- | --- |\n" + "\n".join(rows) + "\n\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


BLOCKS: Mapping[str, Callable[[Schema], str]] = {
    "action-inputs": action_inputs,
    "action-outputs": action_outputs,
    "component-inputs": component_inputs,
    "component-table": component_table,
    "component-variables": component_variables,
    "readme-inputs": readme_inputs,
    "readme-outputs": readme_outputs,
}


def main(words: list[str]) -> int:
    schema = json.loads((ROOT / "schema" / "inputs.schema.json").read_text("utf-8"))
    stale = 0
    for name in FILES:
        file = ROOT / name
        before = file.read_text("utf-8")
        after = render(schema, before)
        if before == after:
            continue
        if "--check" in words:
            stale += 1
            print(
                "".join(
                    difflib.unified_diff(
                        before.splitlines(True), after.splitlines(True), name, f"{name} (generated)"
                    )
                )
            )
            print(f"{name} is stale: run `make generate`")
        else:
            file.write_text(after, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
