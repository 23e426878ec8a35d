"""Restores a just-in-time configuration that `runner_action/bootstrap/jit.py` has packed for the
user data: of its RSA key only the primes are sent."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Dict


def whole(parts: Dict[str, Any]) -> str:
    """The configuration from its parts. `files`: texts by name; `key`: the file `name` is computed
    from the primes `p` and `q` (Base64) and the exponent `e`, with `lcm` modulo the least common
    multiple of p - 1 and q - 1, else modulo their product.
    """
    files = dict(parts["files"])
    key = parts.get("key")
    if key:
        files[key["name"]] = _json(numbers(key))
    return _base64(_json({name: _base64(text) for name, text in files.items()}))


def numbers(key: Dict[str, Any]) -> Dict[str, str]:
    """The eight numbers of .NET's RSAParameters, big-endian in Base64, sorted by name."""
    p, q = (int.from_bytes(base64.b64decode(key[name]), "big") for name in "pq")
    e = key["e"]
    totient = (p - 1) * (q - 1)
    d = pow(e, -1, totient // math.gcd(p - 1, q - 1) if key["lcm"] else totient)
    half = (p.bit_length() + 7) // 8
    parameters = {"d": d, "dp": d % (p - 1), "dq": d % (q - 1), "exponent": e}
    parameters.update({"inverseQ": pow(q, -1, p), "modulus": p * q, "p": p, "q": q})
    sizes = {"d": 2 * half, "exponent": (e.bit_length() + 7) // 8, "modulus": 2 * half}
    encoded = {
        name: number.to_bytes(sizes.get(name, half), "big") for name, number in parameters.items()
    }
    return {name: base64.b64encode(number).decode() for name, number in encoded.items()}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _json(texts: Dict[str, str]) -> str:
    return json.dumps(texts, separators=(",", ":"))
