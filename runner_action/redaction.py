"""Removes secrets from texts before they are written anywhere. Pure.

A text from a library or a service may quote a secret as it is, escaped (`b'…\\r'`, JSON, a URL), in
Base64 (as in `Authorization: Basic …`), or one line of it; or only a piece, if the text was cut, or
if what is odd in the secret was lost or misread on the way.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

from runner_action.plain import plain, text_from_base64

HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret: a shorter one would be found inside ordinary words."""
LEAST = 8
"""Characters of a part of a secret, such as a line."""
PIECE = 12
"""Characters that follow one another in a secret and are removed wherever they stand."""
_RUN = re.compile(rf"[A-Za-z0-9+/._~-]{{{PIECE},}}=*")
"""What no transport changes."""
_NO_PIECES = re.compile(r"[~.]{0,2}/|https?://|[{\[]|\w+=[^=]|.*[\r\n]")
"""How a path, an address, a document or a named value begins: pieces of it are no secrets."""
_FIELD = re.compile(
    r"""(?:token|secret|passw(?:or)?d|passphrase|private[_-]?key|key[_-]data|secret_access_key
    |aws_access_key_id|authorization) ["']? \s* [:=] \s*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)'
    | (?P<bare>[^\s"'{\[|>&*][^\r\n]*?)(?=[,}\]](?:\s|[}\]]|$)|\s\#|\s*$) )""",
    re.I | re.M | re.X,
)
"""A field of JSON, YAML or INI whose name ends with the name of a secret."""
_NETRC = re.compile(r"\bpassword[ \t]+([^ \t\r\n:=][^ \t\r\n]*)")
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


def pieces_of(secret: str) -> Iterator[str]:
    """Every PIECE of what is secret in it, as it is and in Base64. Of a document only its fields
    and the lines of its keys."""
    parts = parts_of(secret)
    inner = [part for part in parts if part != secret.strip()]
    for part in parts:
        if _NO_PIECES.match(part) or (part not in inner and inner and not _is_solid(part)):
            continue
        runs = _RUN.findall(part)
        encoded = (form for text in (part, *runs) for form in _in_base64(_bytes(text)))
        for run in (*runs, *encoded):
            yield from (run[start : start + PIECE] for start in range(len(run) - PIECE + 1))


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
    content = _bytes(part)
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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


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
        self._lock = threading.RLock()
        self._forms: list[str] = []
        self._pieces: set[str] = set()

    def add(self, secrets: Iterable[str]) -> None:
        known = {*self._forms}
        for secret in secrets:
            known |= {form for part in parts_of(secret) for form in forms_of(part)}
            self._pieces.update(pieces_of(secret))
        # The longest first: what contains another must not be left in part.
        self._forms = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        with self._lock:  # no other thread writes before these are known
            while self._later:
                self.add(self._later[-1]())
                self._later.pop()
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        text = self._without_pieces(text)
        return _USER.sub(f"{HIDDEN}@", SHAPES.sub(HIDDEN, text))

    def _without_pieces(self, text: str) -> str:
        rest: list[str] = []
        end = 0
        for start in range(len(text) - PIECE + 1):
            if text[start : start + PIECE] in self._pieces:
                if start > end or not rest:
                    rest += [text[end:start], HIDDEN]
                end = start + PIECE
        return "".join([*rest, text[end:]])
