"""Packs GitHub's just-in-time configuration for the user data. Pure.

It has some 4,200 characters: three files in Base64 inside JSON inside Base64. One of the files has
the eight numbers of a 2,048-bit RSA key (actions/runner, src/Runner.Listener/Runner.cs and
src/Runner.Common/RSAFileKeyManager.cs). Of these 1,280 random bytes only the 256 of the two primes
are needed. A configuration of another form stays as it is.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from runner_action.agent import jit

NUMBERS = ("d", "dp", "dq", "exponent", "inverseQ", "modulus", "p", "q")


def packed(encoded: str) -> dict[str, Any] | None:
    """The parts from which `agent.jit.whole` restores exactly this text; None if it cannot."""
    try:
        outer = json.loads(base64.b64decode(encoded, validate=True))
        files = {
            name: base64.b64decode(text, validate=True).decode() for name, text in outer.items()
        }
        candidates = [parts for name in files for parts in _with_primes(files, name)][:1]
        candidates.append({"files": files})
        for parts in candidates:
            if jit.whole(parts) == encoded:
                return parts
    except (ValueError, TypeError, AttributeError):
        pass
    return None


def _with_primes(files: dict[str, str], name: str) -> list[dict[str, Any]]:
    """The parts with primes in place of the file `name`; empty if that is not a key. The private
    exponent is computed in both ways that are in use."""
    try:
        numbers = json.loads(files[name])
    except ValueError:
        return []
    if not isinstance(numbers, dict) or tuple(numbers) != NUMBERS:
        return []
    if not all(isinstance(text, str) for text in numbers.values()):
        return []
    e = int.from_bytes(base64.b64decode(numbers["exponent"]), "big")
    primes = {"p": numbers["p"], "q": numbers["q"]}
    keys = [{"name": name, "e": e, **primes, "lcm": lcm} for lcm in (True, False)]
    # An empty text keeps the file's place among the others.
    return [{"files": {**files, name: ""}, "key": key} for key in keys if _restores(key, numbers)]


def _restores(key: dict[str, Any], numbers: dict[str, str]) -> bool:
    try:
        return jit.numbers(key) == numbers
    except (ValueError, OverflowError):  # they are not primes
        return False
