"""The words of a command line, as people, web pages and CML's own documents write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from runner_action.inputs.sources import schema, spellings
from runner_action.typography import DASHES, SPACES

PROGRAMS = ("cml", "cml-runner")
OF_CML = frozenset(
    {
        *("asset", "check", "ci", "comment", "pr", "publish", "repo", "report"),
        *("send-comment", "tensorboard", "tensorboard-dev"),
    }
)
"""CML's other commands. https://github.com/iterative/cml/tree/main/bin/cml"""
RERUN = ("workflow", "rerun", "rerun-workflow")
SWITCHES = ("json", "version", "help")
"""Flags that never have a value, besides those of the schema."""
_FLAG = re.compile(rf"(?:-|[{DASHES}])[-{DASHES}]?(?=[A-Za-z])")
_NEXT_FLAG = re.compile(rf"[{SPACES}]+(?=[-{DASHES}]{{1,2}}[A-Za-z])")


@dataclass
class Arranged:
    """`words`: what argparse reads, each flag together with its value. `strays`: sentences about
    words that belong to no flag, without their texts, which may be secrets."""

    words: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def without_programs(argv: Sequence[str]) -> list[str]:
    """Without the beginnings `cml` and `runner`, and without a lone `--` before the command."""
    words = _without_hyphens(argv)
    for names in (PROGRAMS, ("runner",)):
        if words and words[0] in names:
            words = _without_hyphens(words[1:])
    return words


def _without_hyphens(words: Sequence[str]) -> list[str]:
    first = next((place for place, word in enumerate(words) if not _is_hyphens(word)), len(words))
    return list(words[first:])


def _is_hyphens(word: str) -> bool:
    """A lone `--`: CML refused a command line in which no word begins with a hyphen, so its users
    append one."""
    return word.strip() == "--"


def arrange(words: Sequence[str], commands: Sequence[str], offset: int = 0) -> Arranged:
    """Joins flags and their values. The words behind the value of a list belong to it, as in CML.

    `commands`: words that are never an item of a list; `offset`: how many words of the command
    line precede these.
    """
    arranged = Arranged()
    flag = ""
    awaits = goes_on = False
    for place, word in enumerate(words, offset + 1):
        for part in _parts(word, of_secret=awaits and _may_be_secret(flag)):
            if _FLAG.match(part) and not (awaits and _is_value(part, flag)):
                flag, value = _flag_of(part)
                arranged.words.append(f"{flag}{value}")
                awaits = not value and flag[2:] not in SWITCHES
                goes_on = _is_list(flag)
            elif awaits and not _broken(part):
                arranged.words[-1] += f"={part}"
                awaits = False
            elif awaits:  # what follows may be anything, and values are shown in messages
                arranged.words[-1] += "="
                arranged.strays.append(_stray(part, place, flag, commands))
                awaits = goes_on = False
            elif goes_on and not _broken(part) and part not in commands:
                arranged.words.append(f"{flag}={part}")
            elif part:
                arranged.strays.append(_stray(part, place, flag, commands))
                goes_on = False
    return arranged


def _parts(word: str, *, of_secret: bool) -> list[str]:
    """A word, or the flags in it that only no-break spaces divide. Secrets and scripts are never
    divided, since the parts of what is no flag are shown."""
    if _is_hyphens(word):
        return []
    kept = of_secret or (_FLAG.match(word) and _may_be_secret(_flag_of(word)[0]))
    if kept or not _NEXT_FLAG.search(word):
        return [word]
    return [part for part in _NEXT_FLAG.split(word) if part]


def _may_be_secret(flag: str) -> bool:
    return _is_kept(flag) or not _is_known(flag[2:])


def _is_value(word: str, flag: str) -> bool:
    """Whether a word that begins with a hyphen may be the secret that its flag takes; an unknown
    flag may be a mistyped one."""
    if _is_kept(flag):
        return not _is_known(_flag_of(word)[0][2:])
    return not _is_known(flag[2:]) and not word.startswith("--")


def _flag_of(word: str) -> tuple[str, str]:
    """Flag and `=value`, with the hyphens that word processors replace, and from CML's camel case:
    `–cloud`, `--noRetry`, `--tf_resource`."""
    name, equals, value = word.partition("=")
    dashes = _FLAG.match(name)
    assert dashes
    typed = re.search(rf"[{SPACES}]", name)
    if typed:
        value = word[typed.end() :]
        name = name[: typed.start()]
        equals = "="
    bare = re.sub(f"[{DASHES}_]", "-", name[dashes.end() :])
    known = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", bare).lower()
    hyphens = dashes[0] if dashes[0] == "-" else "--"
    return f"{hyphens}{known if _is_known(known) else name[dashes.end() :]}", equals + value


def _is_known(name: str) -> bool:
    return name in spellings() or name in schema()["x-retired"] or name in SWITCHES


def _is_list(flag: str) -> bool:
    return bool(_property(flag).get("type") == "array")


def _is_kept(flag: str) -> bool:
    """Whether a flag's value is taken as it is."""
    return bool({"writeOnly", "x-lines"} & _property(flag).keys())


def _property(flag: str) -> Mapping[str, Any]:
    """The input of a flag; empty for an unknown one."""
    for name, prop in schema()["properties"].items():
        if flag[2:] in (name, *prop.get("x-aliases", ())):
            entry: Mapping[str, Any] = prop
            return entry
    return {}


def _broken(word: str) -> str:
    """What a backslash that is not the last character of its line leaves; empty for other words."""
    if word and not word.strip():
        return "is blank"
    if word.strip() == "\\":
        return "is a backslash"
    if word.startswith("#"):
        return "begins with `#`"
    return "begins with a space" if word.startswith((" ", "\t", "\r", "\n")) else ""


def _stray(word: str, place: int, flag: str, commands: Sequence[str]) -> str:
    """A sentence about a word that belongs to no flag."""
    flag = "" if flag == "--command" else flag  # whose name nobody needs to write
    after = f", after `{flag}`," if flag else ""
    where = f"the {_ordinal(place)} word{after}"
    if broken := _broken(word):
        return f"{where} {broken}: a backslash must be the last character of its line"
    if not flag and word in RERUN:
        return "CML's `workflow rerun` is now `cml-runner restart --run-id=ID`"
    if not flag and word in OF_CML:
        return f"`{word}` is a command of CML; cml-runner has those of `cml runner` only"
    close = [] if flag else get_close_matches(word, commands, 1, 0.75)
    if close:
        return f"{where} is not a command; did you mean `{close[0]}`?"
    return f"{where} belongs to no flag; write `--flag=value`"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"
