"""Converts a text as a person writes it to a typed value. A text that cannot be converted stays as
it is, for the schema to refuse."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from runner_action import credentials
from runner_action.files import ReadFile
from runner_action.inputs.lists import items_of
from runner_action.inputs.scripts import readable, script_of
from runner_action.providers.gpus import word_of
from runner_action.typography import typed

UNITS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_GIGABYTES = re.compile(r"(\d+)\s*(?:g|gb|gib)", re.I)
_PRICE = re.compile(r"\$?\s*(\d*)[.,](\d+)\s*(?:usd|\$)?", re.I)
_TIME = re.compile(r"(\d+)\s*([a-z]+?)s?(?=\W|\d|$)\s*,?\s*")


def convert(texts: Sequence[str], prop: Mapping[str, Any], read_file: ReadFile) -> Any:
    """Converts what was given for one input. `texts`: several if its flag was repeated; `prop`:
    the input in the schema. Raises Unfit for a text that cannot be used."""
    free = bool(prop.get("x-free"))
    if prop["type"] == "array":
        every = (items_of(text, prop["x-split"], free=free) for text in texts)
        return list(dict.fromkeys(item for items in every for item in items))
    text = texts[-1]
    form = prop.get("format")
    if form in FROM_FILES:
        return FROM_FILES[form](text, read_file)
    if not (free or prop.get("writeOnly")):
        text = typed(text)
    types = prop["type"] if isinstance(prop["type"], list) else [prop["type"]]
    return _chosen(BY_FORM[form or types[0]](text), prop)


def _chosen(value: Any, prop: Mapping[str, Any]) -> Any:
    """One of the words to choose from, in whatever case it is written."""
    folded = value.lower() if isinstance(value, str) else value
    return folded if folded in prop.get("enum", ()) else value


def _boolean(text: str) -> bool | str:
    return BOOLEANS.get(text.lower(), text)


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _number(text: str) -> float | str:
    """A number, or a price as in `$0.05` and `0,05`."""
    price = _PRICE.fullmatch(text)
    try:
        number = float(f"{price[1] or 0}.{price[2]}" if price else text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _gigabytes(text: str) -> int | str:
    match = _GIGABYTES.fullmatch(text)
    return _integer(match[1] if match else text)


def _seconds(text: str) -> int | str:
    """Seconds from `300`, `5m` or `1d 3h 25m 18s`; -1 from `never`."""
    plain = text.strip().lower()
    if plain == "never":
        return -1
    if re.fullmatch(r"-?\d+", plain):
        return int(plain)
    parts = _TIME.findall(plain)
    if not parts or _TIME.sub("", plain) or any(unit not in UNITS for _, unit in parts):
        return text
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def _key(text: str, read_file: ReadFile) -> str:
    return credentials.private_key(text, read_file) or text


def _account_key(text: str, read_file: ReadFile) -> str:
    parsed = credentials.account_key(text, read_file)
    return json.dumps(parsed) if parsed else text


def _kubeconfig(text: str, read_file: ReadFile) -> str:
    return credentials.kubeconfig(text, read_file) or text


def _document(text: str, read_file: ReadFile) -> str:
    """A text of several lines, or that of a file."""
    return readable(text if "\n" in text else read_file(text) or text)


def _certificates(text: str, read_file: ReadFile) -> str:
    """The certificates (PEM) in the text, or else in the file of that name."""
    from_file = "" if "\n" in text else read_file(text) or ""
    return credentials.certificates(text, read_file) or readable(from_file or text)


BY_FORM: Mapping[str, Callable[[str], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "string": str,
    "duration": _seconds,
    "gigabytes": _gigabytes,
    "gpu": word_of,
    "repository": str.strip,
}
"""By format, or by type for an input without one."""
FROM_FILES: Mapping[str | None, Callable[[str, ReadFile], str]] = {
    "script": script_of,
    "document": _document,
    "certificates": _certificates,
    "key": _key,
    "token": credentials.token,
    "account-key": _account_key,
    "kubeconfig": _kubeconfig,
}
"""Formats whose text may be in a file."""


def check_rsa(private: str) -> None:
    """Raises ValueError, without any of the key's text, unless it is a private RSA key in PEM, as
    GitHub creates them for Apps."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        usable = isinstance(load_pem_private_key(private.encode(), password=None), RSAPrivateKey)
    except Exception:  # noqa: BLE001  see public_half
        usable = False
    if not usable:
        raise ValueError("not a private RSA key")


def public_half(private: str) -> str:
    """The public half of a private SSH key, as a line for authorized_keys. Raises ValueError,
    without any of the key's text."""
    from cryptography.hazmat.primitives import serialization  # needed only for debugging sessions

    text = private.strip().encode() + b"\n"
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH" in text
        else serialization.load_pem_private_key
    )
    try:
        key = load(text, password=None).public_key()
        line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except Exception:  # noqa: BLE001  many classes, and texts that may quote the key
        raise ValueError("not a private key") from None
    return line.decode()


def is_here(host: str) -> bool:
    """Whether the host is this machine, by a name that never means another one.
    https://www.rfc-editor.org/rfc/rfc6761#section-6.3"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
