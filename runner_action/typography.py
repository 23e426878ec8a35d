"""Characters that word processors and web pages put in place of those that people type. Pure."""

from __future__ import annotations

import re

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
"""What stands for a hyphen. https://www.unicode.org/charts/PDF/U2000.pdf (Dashes)"""
SPACES = "\u00a0\u2000-\u200d\u202f\u205f\u2060\u3000\ufeff"
"""What stands for a space, with those of no width: for a character class of a regular
expression."""
QUOTES = (
    *('""', "''", "``"),
    *("\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "\u201a\u2018"),
    *("\u201d\u201d", "\u2019\u2019", "\u00ab\u00bb", "\u2039\u203a"),
)
"""Opening and closing quotes. https://www.unicode.org/charts/PDF/U2000.pdf (Quotation marks)"""


def unquoted(text: str) -> str:
    """The text without spaces and without quotes around all of it."""
    bare = re.sub(rf"^[\s{SPACES}]+|[\s{SPACES}]+$", "", text)
    for pair in QUOTES:
        inner = bare[1:-1]
        if len(bare) > 1 and (bare[0], bare[-1]) == (*pair,) and not {*pair} & {*inner}:
            return inner
    return bare


def typed(text: str) -> str:
    """The text as a keyboard types it: without quotes around it, with simple hyphens and spaces."""
    spaced = re.sub("[\u200b-\u200d\u2060\ufeff]", "", unquoted(text))
    return re.sub(f"[{DASHES}]", "-", re.sub(f"[{SPACES}]", " ", spaced))
