"""Removes secrets from texts before they are written anywhere. Pure.

A text from a library or a service may quote a secret as it is, escaped (`b'…\\r'`, JSON, a URL), in
Base64 (as in `Authorization: Basic …`), or one line of it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

from runner_action.plain import plain, text_from_base64

HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret: a shorter one would be found inside ordinary words."""
LEAST = 8
"""Characters of a part of a secret, such as a line."""
_FIELD = re.compile(
    r"""(?:token|secret|passw(?:or)?d|passphrase|private[_-]?key|key[_-]data|secret_access_key
    |aws_access_key_id|authorization) ["']? \s* [:=] \s*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)'
    | (?P<bare>[^\s"'{\[|>&*][^\r\n]*?)(?=[,}\]](?:\s|[}\]]|$)|\s\#|\s*$) )""",
    re.I | re.M | re.X,
)
"""A field of JSON, YAML or INI whose name ends with the name of a secret."""
_NETRC = re.compile(r"\bpassword[ \t]+([^\s:=]\S*)")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
)
_SOLID = re.compile(r"""[^\s{}\[\]"':,]+""")
"""A line of a key or token, and not of the document around it."""
SHAPES = re.compile(
    r"\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}"
    r"|\b(?:glpat|gloas|gldt|glrt|glrtr|glcbt|glptt|glft|glimt|glagent|glsoat)-[\w.-]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=[Bb]earer )[^\s'\"]{8,}",
    re.S,
)
"""Secrets that are known by their shape: tokens of GitHub
(https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/)
and GitLab (https://docs.gitlab.com/security/tokens/#token-prefixes), signed tokens, private
keys."""
_USER = re.compile(r"(?<=//)[^/@\s]+@")
"""User and password in an address."""


def parts_of(secret: str) -> list[str]:
    """The secret itself, and what is secret in it: fields of a document, lines of a key. Never its
    punctuation, names or short lines."""
    parts = [secret.strip()] if len(secret.strip()) >= SHORTEST else []
    for text in _readings(secret):
        inner = [*_fields(text), *_lines(text)]
        parts += [part for part in inner if len(part) >= LEAST]
    return list(dict.fromkeys(parts))


def lines_of(secret: str) -> list[str]:
    """The same, for a log that hides single lines: those parts that are one line."""
    return [part for part in parts_of(secret) if len(part.splitlines()) == 1]


def _readings(secret: str) -> Iterator[str]:
    """The text, with its escaped line ends, and decoded from Base64."""
    for text in filter(None, (secret, text_from_base64(secret))):
        yield text
        if "\\n" in text:
            yield text.replace("\\r", "").replace("\\n", "\n")


def _fields(text: str) -> Iterator[str]:
    for match in _FIELD.finditer(text):
        value = match["double"] or match["single"] or match["bare"] or ""
        yield value
        if "\\" in value:
            yield _unescaped(value)
        yield from value.split()
    yield from _NETRC.findall(text)


def _unescaped(value: str) -> str:
    try:
        return str(json.loads(f'"{value}"', strict=False))
    except ValueError:
        return value


def _lines(text: str) -> Iterator[str]:
    for body in _PRIVATE_KEY.findall(text):
        yield from body.split()
    lines = text.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if _is_solid(line.strip()))


def _is_solid(line: str) -> bool:
    return bool(_SOLID.fullmatch(line)) and not line.startswith("-----")


def forms_of(part: str) -> set[str]:
    """The spellings in which a library may quote a text."""
    content = part.encode("utf-8", "surrogateescape")
    forms = {
        part,
        plain(part),
        "".join(part.split()),
        repr(part)[1:-1],
        repr(content)[2:-1],
        json.dumps(part)[1:-1],
        json.dumps(part, ensure_ascii=False)[1:-1],
        quote(content),
        quote(content, safe=""),
        quote_plus(content),
        *_in_base64(content),
    }
    return {form for form in forms if len(form) >= SHORTEST}


def _in_base64(content: bytes) -> Iterator[str]:
    """How Base64 spells these bytes at each of the three places in its groups, without the
    characters that depend on what stands beside them."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + content).decode().rstrip("=")
        whole = len(content) + before
        inner = encoded[(0, 2, 3)[before] : whole * 8 // 6]
        if len(inner) >= LEAST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


class Redaction:
    """Knows secrets, and removes them from texts. `later`: returns further secrets, and is called
    when the first text is written."""

    def __init__(self, later: Callable[[], Iterable[str]] = tuple) -> None:
        self._later = [later]
        self._forms: list[str] = []

    def add(self, secrets: Iterable[str]) -> None:
        known = {*self._forms}
        for part in (part for secret in secrets for part in parts_of(secret)):
            known |= forms_of(part)
        # The longest first: what contains another must not be left in part.
        self._forms = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        while self._later:
            self.add(self._later.pop()())
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        return _USER.sub(f"{HIDDEN}@", SHAPES.sub(HIDDEN, text))
