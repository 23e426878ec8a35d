"""The command line: the commands, the flags that each reads, and the help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from runner_action import __version__, inputs
from runner_action.errors import InputError
from runner_action.inputs import words as command_words

PROGRAM = "cml-runner"
ABOUT = "Self-hosted runners for GitHub Actions and GitLab CI on your own cloud, in one command."
EXAMPLES = """examples:
  cml-runner launch --repo=octo/train --cloud=aws --labels=gpu --cloud-gpu=t4
  cml-runner launch --repo=octo/train --cloud=aws --dry-run
  cml-runner status --repo=octo/train --cloud=aws

`cml-runner COMMAND --help` lists the flags of a command. Every flag can also be set as the
variable CML_RUNNER_<FLAG>, or as an input of the GitHub action.
"""
REGISTERED = ("repo", "token", "app-id", "app-private-key", "driver", "allow-http")
"""Where runners are registered, and with which credentials."""
COMMON = (*REGISTERED, "ca-certificates", "log")
"""Inputs of every command."""
SEARCHING = (*COMMON, "cloud", "cloud-region")
"""Inputs of the commands that search for machines, without those of the clouds' accounts."""


@dataclass(frozen=True)
class Command:
    """`reads`: the inputs that the command takes as flags; None for all of a launch. A command that
    `searches` for machines also takes those of the clouds' accounts."""

    about: str
    reads: tuple[str, ...] | None = None
    searches: bool = False


COMMANDS = {
    "launch": Command("launch runners and wait until they are online (the default)"),
    "status": Command(
        "list runners and machines, and anything unexpected", SEARCHING, searches=True
    ),
    "reap": Command(
        "delete what is past its lease or left behind", (*SEARCHING, "dry-run"), searches=True
    ),
    "destroy": Command(
        "delete everything of one launch, by its name",
        (*SEARCHING, "name", "dry-run"),
        searches=True,
    ),
    "restart": Command(
        "re-run a workflow run that ended because its machine was reclaimed",
        (*COMMON, "run-id", "restart-limit", "no-retry", "allow-forks"),
    ),
    "cleanup": Command("after a failed or cancelled job, delete what its launch left"),
    "permissions": Command("print the permissions that a launch with these flags needs"),
    "sandbox": Command("demonstrate a whole launch on this machine, without any account"),
}
NOT_OF_A_LAUNCH = ("command", "run-id")


def reads(command: str) -> set[str]:
    """The inputs that a command takes as flags; an unknown command counts as `launch`."""
    known = COMMANDS.get(command, COMMANDS["launch"])
    properties = inputs.schema()["properties"]
    if known.reads is None:
        return set(properties) - set(NOT_OF_A_LAUNCH)
    accounts = {name for name, prop in properties.items() if prop.get("x-account")}
    return {*known.reads, *(accounts if known.searches else ())}


def overview() -> str:
    """The text of `cml-runner --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.about}" for name, command in COMMANDS.items()]
    listed = "\n".join(lines)
    return (
        f"usage: {PROGRAM} COMMAND [--flag=value …]\n\n{ABOUT}\n\ncommands:\n{listed}\n\n{EXAMPLES}"
    )


def flags_of(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values of each flag by the name of its input; and the flags that this command does not
    know, with sentences about words that belong to no flag.

    The words `launch` and `runner` (from CML's `cml runner launch`) may be omitted.
    """
    words = command_words.without_programs(argv)
    command = words[0] if words and words[0] in COMMANDS else "launch"
    if words[:1] == ["destroy"] and words[1:2] and not words[1].startswith("-"):
        words[1] = f"--name={words[1]}"
    if words[:1] and words[0] in inputs.schema()["properties"]["command"]["enum"]:
        words[:1] = [f"--command={words[0]}"]
    arranged = command_words.arrange(words, (*COMMANDS,), len(argv) - len(words))
    try:
        known, unknown = parser_of(command).parse_known_args(arranged.words)
    except InputError as error:
        raise InputError([*error.problems, *arranged.strays]) from None
    flags = {flag: texts for flag, texts in vars(known).items() if flag != "json"}
    if command != "launch":
        retired = inputs.schema()["x-retired"]
        accepted = {*inputs.spellings(reads(command)), "command", *retired}
        unknown += [f"--{flag}" for flag in flags if flag not in accepted]
    return flags, [*unknown, *arranged.strays]


def parser_of(command: str) -> argparse.ArgumentParser:
    """A parser for the flags of all commands, so that `flags_of` can report those of others. Its
    help lists only the flags of this command."""
    parser = _Parser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} [--flag=value …]",
        description=f"{COMMANDS[command].about[0].upper()}{COMMANDS[command].about[1:]}.",
        epilog=(
            "Every flag can also be set as the variable CML_RUNNER_<FLAG>, or by an action as"
            " INPUT_<FLAG>."
        ),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cml-runner {__version__}")
    parser.add_argument(
        "--json", action="store_true", help="print the outputs as JSON on standard output"
    )
    shown = reads(command)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, prop in inputs.schema()["properties"].items():
        title = prop["x-group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        for flag in (name, *prop.get("x-aliases", ())):
            _add(groups[title], flag, prop, hidden=flag != name or name not in shown)
    for flag in inputs.schema()["x-retired"]:
        parser.add_argument(f"--{flag}", dest=flag, action="append", help=argparse.SUPPRESS)
    return parser


class _Parser(argparse.ArgumentParser):
    """Raises InputError for mistakes, so that they are reported like all other problems."""

    def error(self, message: str) -> NoReturn:
        raise InputError([message.removeprefix("argument ")])


def _add(group: argparse._ArgumentGroup, flag: str, prop: inputs.Schema, *, hidden: bool) -> None:
    """Adds a flag. A boolean needs no value: `--single` means `--single=true`."""
    switch: dict[str, Any] = {}
    if "boolean" in prop["type"]:
        switch = {"nargs": "?", "const": "true"}
    group.add_argument(
        f"--{flag}",
        dest=flag,
        action="append",
        metavar=_metavar(prop),
        help=argparse.SUPPRESS if hidden else _help(prop),
        **switch,
    )


def _metavar(prop: Mapping[str, Any]) -> str:
    if "enum" in prop:
        return "|".join(str(word).lower() for word in prop["enum"])
    return "true|false" if prop["type"] == "boolean" else "VALUE"


def _help(prop: Mapping[str, Any]) -> str:
    default = prop.get("default")
    shown = ",".join(default) if isinstance(default, list) else default
    text = prop["description"] + (f" [default: {shown}]" if shown not in (None, False, "") else "")
    return str(text).replace("%", "%%")
