"""Texts of several lines, such as scripts, as people and Windows write them. Pure, except for
reading files."""

from __future__ import annotations

import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from runner_action.files import ReadFile
from runner_action.plain import from_base64
from runner_action.typography import unquoted

KEPT = "\n\t"
"""Control characters that a text may have."""
UNDECODED = "\ufffd"
UTF16 = (
    "is encoded as UTF-16, as PowerShell and editors on Windows write it; save the text as UTF-8"
)
NOT_UTF8 = "is not text in UTF-8{}; save it as UTF-8"


class Unfit(ValueError):
    """A text that is not what its input needs; the end of a sentence that says why."""


def script_of(text: str, read_file: ReadFile) -> str:
    """A script, from itself, from Base64 or from a file; empty if it is none of these. Raises
    Unfit if no shell could run it."""
    if text.lstrip("\ufeff \t\r\n").startswith("#!"):
        return readable(text.lstrip("\ufeff \t\r\n"))
    word = unquoted(text)
    from_file = read_file(word)
    try:
        decoded = _decoded(word)
        if decoded is not None:
            return readable(decoded)
    except Unfit:
        if from_file is None:
            raise
    if from_file is None and re.match(r"\$\(|`|\$\{?\w", text.strip()):
        raise Unfit(
            "is a command or a variable that no shell has expanded; write the path of the file"
        )
    return readable(from_file or "")


def with_unix_lines(text: str) -> str:
    return re.sub(r"\r+\n", "\n", text.removeprefix("\ufeff"))


def _decoded(text: str) -> str | None:
    """What Base64 says; None if that is not text, so that this is no Base64."""
    data = from_base64(text)
    if data is None:
        return None
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise Unfit(UTF16)
    try:
        return data.decode()
    except UnicodeDecodeError:
        if data.count(0) * 3 > len(data):
            raise Unfit(UTF16) from None
        return None


def readable(text: str) -> str:
    """The text with Unix's line ends. Raises Unfit if neither a shell nor a parser could read
    it."""
    plain = with_unix_lines(text)
    if plain.count("\0") * 3 > len(plain):
        raise Unfit(UTF16)
    for number, line in enumerate(plain.split("\n"), 1):
        where = f" (line {number})"
        if UNDECODED in line:
            raise Unfit(NOT_UTF8.format(where))
        wrong = [
            letter
            for letter in line
            if letter not in KEPT and unicodedata.category(letter) in ("Cc", "Cs")
        ]
        if wrong and wrong[0] == "\0":
            raise Unfit(f"has a NUL byte{where}; is it a program?")
        if wrong:
            raise Unfit(f"has the control character U+{ord(wrong[0]):04X}{where}; remove it")
    return plain
