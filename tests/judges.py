"""What judges from outside, and what becomes of a test where a judge is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRED = "JUDGES"
"""`required` in the project's own CI, where a missing judge is a failure."""


def missing(judge: str) -> NoReturn:
    """Ends the test. `judge`: what is missing, and what installs it."""
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"A judge is missing: {judge}")
    pytest.skip(f"SKIPPED LOUDLY: {judge}")
