"""Texts from elsewhere, made harmless before they are written anywhere. Pure.

What GitHub, GitLab, a cloud, a machine or a user says may hold what a terminal, a log or a page
takes for more than text. The only place that knows what that is.

GitHub's runner looks at every line of a job's log, and takes two forms for a command to it:
`::name::` at the beginning, after blanks; and `##[name]` anywhere in the line, as its older parser
has it: "int prefixIndex = message.IndexOf(Prefix);" with "Prefix = "##[""
(https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs, TryParse and
TryParseV2). Both compare as .NET's culture does, which passes over what nobody sees, such as a
zero-width space or a variation selector: so do we.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters (C0 and C1, with ESC), format characters (writing
direction, zero width), halves of surrogates, separators of lines and paragraphs.
https://www.unicode.org/reports/tr44/#General_Category_Values"""
_COMMAND = re.compile(r"^([^!-~]*:)(?=[^ -~]*:)")
_OLDER_COMMAND = re.compile(r"(#[^ -~]*#[^ -~]*)\[")
_LINE_END = re.compile(r"\r\n|\r|\n")
_WORDS = re.compile(r"(?!.*www\.)[A-Za-z0-9 ,.()+:;%$-]*")
"""What Markdown takes for nothing but text."""


def plain(text: str) -> str:
    """One line that is nothing but text: what is unseen is a space, and commands are broken up."""
    seen = "".join(" " if unicodedata.category(each) in UNSEEN else each for each in text)
    return _COMMAND.sub(r"\1 ", _OLDER_COMMAND.sub(r"\1 [", seen))


def lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(plain, _LINE_END.split(text)))


def is_plain(text: str) -> bool:
    return plain(text) == text


def dumps(value: object) -> str:
    """JSON whose texts are plain."""
    return json.dumps(_each(value))


def _each(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): _each(one) for key, one in value.items()}
    return list(map(_each, value)) if isinstance(value, list | tuple) else value


def markdown(text: str) -> str:
    """Within a line or a cell of Markdown: as it is if it is but words, else as code, in which
    there are no links, no pictures and no HTML. A bar would end the cell, a backtick the code.

    https://github.github.com/gfm/#code-spans and https://github.github.com/gfm/#tables-extension-
    """
    found = plain(text).strip()
    return found if _WORDS.fullmatch(found) else code(found)


def code(text: str) -> str:
    """The same, always as code."""
    found = plain(text).strip().replace("`", "'").replace("|", "¦")
    return f"`{found}`" if found else ""
