"""What a machine must still have after a job to run another."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from runner_action.agent.become import Start
from tests.agent.test_room import tool
from tests.agent.test_spec import SPEC

WORKS, STOPPED = "exit 0", "echo 'Cannot connect to the Docker daemon'; exit 1"
LOST = "echo 'Unable to determine the device handle for GPU 0000:00:1E.0'; exit 15"
GPU = "the NVIDIA GPU does not work, nvidia-smi fails: exit code 15: Unable to determine"


@pytest.mark.parametrize(
    ("gpu", "docker", "nvidia_smi", "daemon", "restarted", "why"),
    [
        (False, False, LOST, STOPPED, STOPPED, ""),
        (True, True, WORKS, WORKS, STOPPED, ""),
        (True, False, LOST, STOPPED, STOPPED, GPU),
        (True, True, LOST, STOPPED, WORKS, GPU),
        (False, True, LOST, STOPPED, WORKS, ""),
        (True, True, WORKS, STOPPED, STOPPED, "exit code 1: Cannot connect to the Docker daemon"),
    ],
)
def test_what_worked_for_the_last_job_must_still_work(
    gpu: bool,
    docker: bool,
    nvidia_smi: str,
    daemon: str,
    restarted: str,
    why: str,
    tmp_path: Path,
) -> None:
    """`daemon`: how `docker info` ends; `restarted`: how it ends after a restart of Docker."""
    state = tmp_path / "state"
    state.write_text(daemon)
    tool(tmp_path, "docker", f". {state}")
    tool(tmp_path, "systemctl", f'[ "$*" = "restart docker" ] && echo "{restarted}" > {state}')
    environ = tool(tmp_path, "nvidia-smi", nvidia_smi)
    user = pwd.getpwuid(os.geteuid())
    start = Start(SPEC, tmp_path, environ, user, {}, lambda stage, **facts: None, tmp_path)
    start.gpu, start.docker = gpu, docker
    problem = start.unfit()
    assert (problem or "").startswith(why)
    assert bool(problem) is bool(why)
