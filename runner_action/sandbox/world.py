"""The embedded world: one GitHub, one EC2, their machines, in one temporary folder, gone without a trace when it closes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from runner_action.sandbox.ec2 import FakeEC2
from runner_action.sandbox.github import FakeGitHub
from runner_action.sandbox.metadata import FakeMetadata
from runner_action.sandbox.systemd import descendants

TOKEN = "canary-admin-token"
KEY = "canary-secret-access-key"


class World:
    """`with World() as world:`; launch with the variables of `world.environ()`."""

    def __init__(self, *, python: str = sys.executable, timer_factor: float = 1.0, boots: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cml-runner-sandbox-"))
        self.github = FakeGitHub(tokens={TOKEN: "admin", "canary-readonly-token": "readonly"})
        self.metadata = FakeMetadata()
        self.ec2 = FakeEC2(self.folder / "machines", python=python, timer_factor=timer_factor, boots=boots, metadata=self.metadata.url)

    def environ(self) -> dict[str, str]:
        """What a launch in this world needs to know."""
        return {
            "AWS_ENDPOINT_URL": self.ec2.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "CML_RUNNER_REPO": self.github.repo_url,
            "CML_RUNNER_DRIVER": "github",
            "REPO_TOKEN": TOKEN,
        }

    def left(self) -> list[str]:
        """What must not be left at the end of a story: runners, instances, processes."""
        runners = [f"runner {seat.name}" for seat in self.github.forge.seats()]
        return runners + [f"instance {instance}" for instance in self.ec2.alive()]

    def processes(self) -> list[int]:
        """Of all machines, the supervisors included."""
        pids = [living.process.pid for living in self.ec2.living.values() if living.process.poll() is None]
        return [*pids, *(below for pid in pids for below in descendants(pid))]

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.ec2.close()
        self.github.close()
        self.metadata.close()
        shutil.rmtree(self.folder, ignore_errors=True)
