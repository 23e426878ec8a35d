"""Makes texts from other systems harmless before they are written anywhere. Pure.

A text from GitHub, GitLab, a cloud, a machine or a user may contain what a terminal, a log or a
page interprets. Only this module knows what that is.

GitHub's runner reads every line of a job's log and takes two forms for a command: `::name::` at the
beginning, after blanks; and `##[name]` anywhere in the line, as its older parser does: "int
prefixIndex = message.IndexOf(Prefix);" with "Prefix = "##[""
(https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs, TryParse and
TryParseV2). Both compare by .NET's culture, which ignores invisible characters such as a zero-width
space or a variation selector, and so does this module.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters (C0 and C1, with ESC), format characters (writing
direction, zero width), halves of surrogates, separators of lines and paragraphs.
https://www.unicode.org/reports/tr44/#General_Category_Values"""
_COMMAND = re.compile(r"^([^!-~]*:)(?=[^ -~]*:)")
_OLDER_COMMAND = re.compile(r"(#[^ -~]*#[^ -~]*)\[")
_LINE_END = re.compile(r"\r\n|\r|\n")
_WORDS = re.compile(r"(?!.*www\.)[A-Za-z0-9 ,.()+:;%$-]*")
"""Text without any meaning in Markdown."""


def plain(text: str) -> str:
    """One line of plain text: invisible characters become spaces, and commands are broken up."""
    seen = "".join(" " if unicodedata.category(letter) in UNSEEN else letter for letter in text)
    return _COMMAND.sub(r"\1 ", _OLDER_COMMAND.sub(r"\1 [", seen))


def lines(text: str) -> str:
    """The same for each line of a text."""
    return "\n".join(map(plain, _LINE_END.split(text)))


def is_plain(text: str) -> bool:
    return plain(text) == text


def dumps(value: object) -> str:
    """JSON in which all texts are plain."""
    return json.dumps(_all_plain(value))


def _all_plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): _all_plain(item) for key, item in value.items()}
    return list(map(_all_plain, value)) if isinstance(value, list | tuple) else value


def markdown(text: str) -> str:
    """For a line or a table cell of Markdown: words as they are, anything else as code, which can
    contain no links, images or HTML. A bar would end the cell, a backtick the code.

    https://github.github.com/gfm/#code-spans and https://github.github.com/gfm/#tables-extension-
    """
    words = plain(text).strip()
    return words if _WORDS.fullmatch(words) else code(words)


def code(text: str) -> str:
    """The same, always as code."""
    content = plain(text).strip().replace("`", "'").replace("|", "¦")
    return f"`{content}`" if content else ""


def parts_of(address: str) -> SplitResult:
    """The parts of an address that anyone may have written; all empty if it cannot be read.
    `urlsplit` refuses some texts with a ValueError, and reading the port others."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts


def from_base64(text: str) -> bytes | None:
    """What Base64 stands for, which may be wrapped; None if the text is not Base64."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def text_from_base64(text: str) -> str | None:
    """The same for Base64 of a text in UTF-8."""
    data = from_base64(text)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None
