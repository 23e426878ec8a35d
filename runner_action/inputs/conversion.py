"""From a text as a person writes it to a typed value. What cannot be read stays text, for the
schema to refuse."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from runner_action.forges import USUAL, traits_of
from runner_action.model import ForgeName

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
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
_TIME = re.compile(r"(\d+)\s*([a-z]+?)s?(?=\W|\d|$)\s*,?\s*")


def convert(
    texts: Sequence[str], prop: Mapping[str, Any], read_file: Callable[[str], str | None]
) -> Any:
    """The texts given for one input, by its schema's type and format. `read_file` gives a file's
    text, or None if there is none."""
    text = texts[-1]
    match prop["type"], prop.get("format"):
        case "array", _:
            return [
                item for text in texts for item in re.split(prop["x-split"], text.strip()) if item
            ]
        case "boolean" | ["boolean", *_], _:
            return {
                "true": True,
                "1": True,
                "yes": True,
                "false": False,
                "0": False,
                "no": False,
            }.get(text.lower(), text)
        case "integer", "duration":
            return _seconds(text)
        case ("integer" | "number") as kind, _:
            try:
                return int(text) if kind == "integer" else float(text)
            except ValueError:
                return text
        case _, "repository":
            return text.strip()
        case _, "script":
            return _script(text, read_file)
        case _, "key":
            return _key(text)
        case _, "document":
            return (None if "\n" in text else read_file(text)) or text
        case _, "certificates":
            return (
                "\n".join(_CERTIFICATE.findall(text) or _CERTIFICATE.findall(read_file(text) or ""))
                or text
            )
        case _:
            return text


def _seconds(text: str) -> int | str:
    """`300`, `5m`, `1d 3h 25m 18s`, `never`: seconds, -1 for never; the text itself if it is no
    time."""
    plain = text.strip().lower()
    if plain == "never":
        return -1
    if re.fullmatch(r"-?\d+", plain):
        return int(plain)
    parts = _TIME.findall(plain)
    if not parts or _TIME.sub("", plain) or any(unit not in UNITS for _, unit in parts):
        return text
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def _script(text: str, read_file: Callable[[str], str | None]) -> str:
    """Script text from Base64 or from a file, or itself; empty if it is none of them, for the
    schema to refuse."""
    if text.lstrip().startswith("#!"):
        return text.lstrip()
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return read_file(text) or ""


def _key(text: str) -> str:
    """A key's PEM text from itself, with its line ends written out, or from Base64; the text
    itself if it is none of them."""
    plain = text.replace("\\n", "\n").strip()
    if not plain.startswith("-----BEGIN"):
        try:
            plain = base64.b64decode("".join(text.split()), validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return text
    return plain + "\n"


def repository_url(text: str, forge: str | None, servers: Mapping[ForgeName, str]) -> str:
    """URL, `owner/name`, scp-like or ssh remote → `https://host/owner/name`; the text itself if
    it is none of them."""
    if match := re.fullmatch(r"(?:[^@/\s]+@)([^:/\s]+):(?!//)(.+)", text):
        text = f"https://{match[1]}/{match[2]}"
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)+", text):
        name = ForgeName(forge) if forge and forge in [*ForgeName] else USUAL
        known = servers.get(name) or next(filter(None, servers.values()), "")
        text = f"{known or traits_of(name).hosted}/{text}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https", "ssh", "git") or not parts.hostname:
        return text
    over_ssh = parts.scheme in ("ssh", "git")
    host = parts.hostname if over_ssh or not parts.port else f"{parts.hostname}:{parts.port}"
    path = parts.path.strip("/").removesuffix(".git")
    return f"{'https' if over_ssh else parts.scheme}://{host}/{path}"


def check_rsa(private: str) -> None:
    """Raises ValueError, without any of the key's text, unless it is a private RSA key in PEM,
    as GitHub makes them for Apps."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        usable = isinstance(load_pem_private_key(private.encode(), password=None), RSAPrivateKey)
    except Exception:  # noqa: BLE001  as below
        usable = False
    if not usable:
        raise ValueError("not a private RSA key")


def public_half(private: str) -> str:
    """The public half of a private SSH key, as one line for authorized_keys. Raises ValueError
    without any of the key's text."""
    from cryptography.hazmat.primitives import serialization  # only for debugging sessions

    text = private.strip().encode() + b"\n"
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH" in text
        else serialization.load_pem_private_key
    )
    try:
        key = load(text, password=None).public_key()
        line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except Exception:  # noqa: BLE001  the library has a dozen classes for it, and texts that may quote the key
        raise ValueError("not a private key") from None
    return line.decode()


def is_here(host: str) -> bool:
    """This very machine, by what nobody else can answer to.
    https://www.rfc-editor.org/rfc/rfc6761#section-6.3"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
