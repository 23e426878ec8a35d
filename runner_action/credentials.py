"""Reads a credential in every form in which people and CIs pass it: as its text, with Windows' line
ends, in quotes, on one line with `\\n`, in Base64, or as the path of a file that holds it. Pure,
except for reading that file.

GitLab's variables of type File are paths: https://docs.gitlab.com/ci/variables/#use-file-type-cicd-variables
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from runner_action.files import ReadFile
from runner_action.plain import UNSEEN, text_from_base64
from runner_action.typography import QUOTES

PATH_LENGTH = 1024
_PEM = re.compile(r"(-----BEGIN ([A-Z ]+)-----)(.*?)(-----END \2-----)", re.S)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^\\]*?-----END CERTIFICATE-----")
_KUBECONFIG = re.compile(r"""(?:^|[{,])\s*["']?(?:clusters|contexts)["']?\s*:""", re.M)
_VARIABLE = re.compile(r"\$\{?\{?\s*[\w.]+\s*\}?\}?|%\w+%|\$\(.*\)", re.S)
_PATH = re.compile(r"[~.]{0,2}/[^\n]*|[\w.-]+\.(?:json|pem|key|ya?ml|txt|conf|p8)")
_KINDS = (
    (r"-----BEGIN CERTIFICATE", "a certificate"),
    (r"-----BEGIN .*PUBLIC KEY|ssh-\w+ |ecdsa-", "a public key"),
    (r"-----BEGIN ENCRYPTED|.*Proc-Type: 4,ENCRYPTED", "a key with a passphrase"),
    (r"-----BEGIN (?!.*-----END )", "a key whose end is missing"),
    (r"-----BEGIN", "a key of another kind, or a damaged one"),
    (r"(?i)<!doctype|<html|<\?xml", "a web page"),
    (r"\*{3,}$", "the asterisks that a log shows in place of a secret"),
)
"""By the beginning of a text."""


def forms(text: str, read_file: ReadFile, depth: int = 2) -> Iterator[str]:
    """Everything that the text may stand for, beginning with itself."""
    bare = trimmed(text)
    yield bare
    if "\\" in bare:
        yield bare.replace("\\r", "").replace("\\n", "\n")
        yield bare.replace('\\"', '"').replace("\\\\", "\\")
    if not depth or not bare:
        return
    decoded = _decoded(bare)
    if decoded is not None:
        yield from forms(decoded, _no_file, depth - 1)
    if len(bare) < PATH_LENGTH and "\n" not in bare and (content := read_file(bare)):
        yield from forms(content, _no_file, depth - 1)


def trimmed(text: str) -> str:
    """Without what surrounds it: blanks, invisible characters, a pair of quotes. Lines end as on
    Linux."""
    text = _stripped(text.replace("\r\n", "\n").replace("\r", "\n"))
    while len(text) > 1 and f"{text[0]}{text[-1]}" in QUOTES:
        text = _stripped(text[1:-1])
    return text


def _stripped(text: str) -> str:
    first, last = 0, len(text)
    while first < last and _is_edge(text[first]):
        first += 1
    while last > first and _is_edge(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_edge(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in UNSEEN


def _no_file(_path: str) -> None:
    return None


def _decoded(text: str) -> str | None:
    joined = "".join(text.split())
    return text_from_base64(joined + "=" * (-len(joined) % 4))


def token(text: str, read_file: ReadFile) -> str:
    """A token or password: never decoded, as it may look like Base64."""
    bare = trimmed(text)
    content = read_file(bare) if bare.startswith("/") and "\n" not in bare else None
    return trimmed(content) if content else bare


def strange(secret: str) -> str:
    """What a token or password contains that no header can carry, in words; empty for nothing."""
    for letter in secret:
        if letter in "\r\n":
            return "a line break"
        if unicodedata.category(letter) in UNSEEN:
            return f"an invisible character (U+{ord(letter):04X})"
        if letter.isspace():
            return "a blank"
        if not letter.isascii():
            return "a character that is not ASCII"
    return ""


def private_key(text: str, read_file: ReadFile) -> str | None:
    """A private key (PEM), with its lines as they should be; None if there is none."""
    for form in forms(text, read_file):
        match = _PEM.search(form)
        if match and "PRIVATE KEY" in match[2] and "\\" not in match[3]:
            body = match[3].strip()
            lines = body if ":" in body else "\n".join(body.split())
            return f"{match[1]}\n{lines}\n{match[4]}\n"
    return None


def certificates(text: str, read_file: ReadFile) -> str | None:
    """All certificates (PEM); None if there are none."""
    listed = (_CERTIFICATE.findall(form) for form in forms(text, read_file))
    return "\n".join(next(filter(None, listed), ())) or None


def kubeconfig(text: str, read_file: ReadFile) -> str | None:
    """The text of a kubeconfig, YAML or JSON; None if it is none."""
    return next(filter(_KUBECONFIG.search, forms(text, read_file)), None)


def account_key(text: str, read_file: ReadFile) -> dict[str, Any] | None:
    """A service account's key, or a federation's configuration; None if it is neither."""
    for form in forms(text, read_file):
        try:
            parsed = json.loads(form, strict=False)
        except ValueError:
            continue
        if isinstance(parsed, dict) and isinstance(parsed.get("type"), str):
            key = parsed.get("private_key")
            return {**parsed, "private_key": _lines_of(key)} if isinstance(key, str) else parsed
    return None


def _lines_of(key: str) -> str:
    return private_key(key, _no_file) or key


def looks_like(text: str, read_file: ReadFile) -> str:
    """What a text is that is not the credential it should be; never any part of it. Empty if it
    could be anything."""
    bare = trimmed(text)
    if not bare:
        return "an empty text"
    if _VARIABLE.fullmatch(bare):
        return "an unexpanded $VARIABLE"
    if len(bare) < PATH_LENGTH and _PATH.fullmatch(bare):
        return _path_looks_like(bare, read_file)
    for pattern, words in _KINDS:
        if re.match(pattern, bare, re.S):
            return words
    if bare.startswith("{"):
        return "JSON without the fields that it needs" if _is_json(bare) else "damaged JSON"
    return "Base64 of something else" if _decoded(bare) is not None else ""


def instead(text: str, read_file: ReadFile) -> str:
    """The end of the sentence that says what the text is not."""
    kind = looks_like(text, read_file)
    return f", but {kind}" if kind else ""


def _path_looks_like(path: str, read_file: ReadFile) -> str:
    """google-github-actions/auth writes `gha-creds-….json` into the checkout:
    https://github.com/google-github-actions/auth#prerequisites"""
    content = read_file(path)
    if content is not None:
        return f"the path of a file that holds {looks_like(content, _no_file) or 'something else'}"
    gone = "the path of a file that does not exist here or cannot be read"
    if "gha-creds-" in path:
        gone += " (actions/checkout after google-github-actions/auth removes it)"
    return gone


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except ValueError:
        return False
    return True
