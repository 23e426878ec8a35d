"""Placeholders for texts that are not known yet. Pure."""

from __future__ import annotations

import hashlib


def filler(length: int, seed: str) -> str:
    """Hexadecimal digits that compress as badly as a token, always the same for the same seed."""
    return hashlib.sha512(seed.encode()).hexdigest()[:length]
