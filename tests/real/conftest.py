"""Programs of others that a developer has on the machine: `GITLAB_RUNNER` is the path of
gitlab-runner. Without it these tests are skipped, loudly."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gitlab_runner() -> Path:
    path = os.environ.get("GITLAB_RUNNER", "")
    if not path:
        pytest.skip("SKIPPED LOUDLY: GITLAB_RUNNER=path of the program is not set")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    print(version.stdout.splitlines()[0])
    return Path(path).resolve()
