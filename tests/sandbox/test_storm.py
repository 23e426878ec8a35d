"""A small storm; the large one is `python -m benchmarks.storm`."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.sandbox


def test_launches_at_once_while_calls_go_wrong_all_end_and_leave_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "14", "0.05", "3"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 launches, 0 problems" in done.stdout
