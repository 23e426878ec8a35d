"""The vendors' own descriptions, which the tests are held to: README.md says what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def described(name: str) -> dict[str, Any]:
    """A file of this folder; a fresh copy."""
    whole: dict[str, Any] = json.loads((FOLDER / name).read_text("utf-8"))
    return whole
