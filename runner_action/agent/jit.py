"""A just-in-time configuration as it travels in user data (`runner_action/bootstrap/jit.py`),
and the way back: of its RSA key only the primes are sent."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Dict


def whole(parts: Dict[str, Any]) -> str:
    """`parts`: `files`, texts by name; `key`, of the file `name` in which all else follows from
    the primes `p` and `q` (Base64) and the exponent `e`; `lcm`: its inverse is taken modulo
    their least common totient, not their product.
    """
    files = dict(parts["files"])
    key = parts.get("key")
    if key:
        files[key["name"]] = _json(numbers(key))
    return _base64(_json({name: _base64(text) for name, text in files.items()}))


def numbers(key: Dict[str, Any]) -> Dict[str, str]:
    """The eight numbers of .NET's RSAParameters, big-endian in Base64, in the order of their
    names."""
    p, q = (int.from_bytes(base64.b64decode(key[name]), "big") for name in "pq")
    e = key["e"]
    totient = (p - 1) * (q - 1)
    d = pow(e, -1, totient // math.gcd(p - 1, q - 1) if key["lcm"] else totient)
    half = (p.bit_length() + 7) // 8
    found = {"d": d, "dp": d % (p - 1), "dq": d % (q - 1), "exponent": e}
    found.update({"inverseQ": pow(q, -1, p), "modulus": p * q, "p": p, "q": q})
    sizes = {"d": 2 * half, "exponent": (e.bit_length() + 7) // 8, "modulus": 2 * half}
    encoded = {
        name: number.to_bytes(sizes.get(name, half), "big") for name, number in found.items()
    }
    return {name: base64.b64encode(number).decode() for name, number in encoded.items()}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _json(told: Dict[str, str]) -> str:
    return json.dumps(told, separators=(",", ":"))
