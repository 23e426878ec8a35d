"""GitHub's just-in-time configuration, made small for the user data. Pure.

It is some 4,200 characters: three files in Base64 inside JSON inside Base64, one of them the
eight numbers of an RSA key of 2,048 bits (actions/runner, src/Runner.Listener/Runner.cs and
src/Runner.Common/RSAFileKeyManager.cs). Of those 1,280 random bytes only the 256 of the two
primes are information. What is not recognized travels as it is.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from runner_action.agent import jit

NUMBERS = ("d", "dp", "dq", "exponent", "inverseQ", "modulus", "p", "q")


def packed(encoded: str) -> dict[str, Any] | None:
    """The parts from which `agent.jit.whole` makes the very same text; None if it could not."""
    try:
        outer = json.loads(base64.b64decode(encoded, validate=True))
        files = {
            name: base64.b64decode(text, validate=True).decode() for name, text in outer.items()
        }
        with_key = next((found for name in files for found in _with_primes(files, name)), None)
        return next(
            (
                parts
                for parts in (with_key, {"files": files})
                if parts and jit.whole(parts) == encoded
            ),
            None,
        )
    except (ValueError, TypeError, AttributeError):
        return None


def _with_primes(files: dict[str, str], name: str) -> list[dict[str, Any]]:
    """The same with one file as its primes, if it is a key; in both ways in which a private
    exponent is made."""
    try:
        told = json.loads(files[name])
    except ValueError:
        return []
    if (
        not isinstance(told, dict)
        or tuple(told) != NUMBERS
        or not all(isinstance(text, str) for text in told.values())
    ):
        return []
    e = int.from_bytes(base64.b64decode(told["exponent"]), "big")
    keys = [
        {"name": name, "e": e, "p": told["p"], "q": told["q"], "lcm": lcm} for lcm in (True, False)
    ]
    # Its place among the files is kept.
    return [{"files": {**files, name: ""}, "key": key} for key in keys if _makes(key, told)]


def _makes(key: dict[str, Any], told: dict[str, str]) -> bool:
    try:
        return jit.numbers(key) == told
    except (ValueError, OverflowError):  # no primes
        return False
