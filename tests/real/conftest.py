"""Programs of others that a developer has on the machine: `GITLAB_RUNNER` is the path of
gitlab-runner. Without it these tests are skipped, loudly."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real.cluster import node, server, space, working
from tests.sandbox.conftest import launch

__all__ = ["docker", "gitlab_runner", "launch", "node", "server", "space", "working"]


@pytest.fixture(scope="session")
def gitlab_runner() -> Path:
    path = os.environ.get("GITLAB_RUNNER", "")
    if not path:
        pytest.skip("SKIPPED LOUDLY: GITLAB_RUNNER=path of the program is not set")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    print(version.stdout.splitlines()[0])
    return Path(path).resolve()


@pytest.fixture(scope="session")
def docker() -> str:
    """The path of a `docker` whose daemon works. `DOCKER=yes`, since the agent removes the
    containers that are started while its jobs run: all of them, as on a machine of its own."""
    if os.environ.get("DOCKER") != "yes":
        pytest.skip("SKIPPED LOUDLY: DOCKER=yes is not set, by which other containers may be lost")
    path = shutil.which("docker")
    if not path or subprocess.run([path, "info"], capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED LOUDLY: `docker info` fails here")
    return path
