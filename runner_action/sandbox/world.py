"""The embedded world: a GitHub, a GitLab, one EC2, their machines, in one temporary folder, gone without a trace when it closes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from runner_action.model import ForgeName
from runner_action.sandbox.ec2 import FakeEC2
from runner_action.sandbox.github import FakeGitHub
from runner_action.sandbox.gitlab import FakeGitLab
from runner_action.sandbox.jobs import Forge
from runner_action.sandbox.metadata import FakeMetadata
from runner_action.sandbox.systemd import descendants

TOKEN = "canary-admin-token"
KEY = "canary-secret-access-key"


class World:
    """`with World() as world:`; launch with the variables of `world.environ()`, or of `world.job_environ()` as a job does. `forge`: whose
    repository it is all about. `host`: where all of it is served; `machine`: as in FakeEC2."""

    def __init__(
        self,
        forge: str = ForgeName.GITHUB,
        *,
        python: str = sys.executable,
        timer_factor: float = 1.0,
        boots: bool = True,
        host: str = "127.0.0.1",
        machine: Callable[[str, Path], Sequence[str]] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cml-runner-sandbox-"))
        self.kind = ForgeName(forge)
        self.github = FakeGitHub(tokens={TOKEN: "admin", "canary-readonly-token": "readonly"}, host=host)
        self.gitlab = FakeGitLab(tokens={TOKEN: ["api"], "canary-readonly-token": ["read_api"]}, prefix="/git", host=host)
        self.metadata = FakeMetadata()
        machines = self.folder / "machines"
        self.ec2 = FakeEC2(machines, python=python, timer_factor=timer_factor, boots=boots, host=host, machine=machine, metadata=self.metadata.url)

    @property
    def server(self) -> FakeGitHub | FakeGitLab:
        return self.github if self.kind is ForgeName.GITHUB else self.gitlab

    @property
    def forge(self) -> Forge:
        """Its memory: runners, jobs."""
        return self.server.forge

    def environ(self) -> dict[str, str]:
        """What a launch in this world needs to know."""
        downloads = {"CML_RUNNER_RUNNER_DOWNLOADS": self.gitlab.downloads} if self.kind is ForgeName.GITLAB else {}
        return {**self._secrets(), **downloads, "CML_RUNNER_REPO": self.server.repo_url, "CML_RUNNER_DRIVER": self.kind.value}

    def job_environ(self, run: int = 77, number: int = 1, name: str = "launch", attempt: int = 1, runner: str = "hosted") -> dict[str, str]:
        """The same as the forge's own CI tells it to a job; `run` is a pipeline on GitLab."""
        if self.kind is ForgeName.GITLAB:
            job = {"GITLAB_CI": "true", "CI_JOB_ID": str(number), "CI_JOB_NAME": name, "CI_PIPELINE_ID": str(run), "CI_PROJECT_PATH": "octo/train"}
            where = {"CI_SERVER_URL": self.gitlab.server_url, "CI_API_V4_URL": f"{self.gitlab.server_url}/api/v4", "CI_PROJECT_URL": self.gitlab.repo_url}
            return {**self._secrets(), **job, **where, "CML_RUNNER_RUNNER_DOWNLOADS": self.gitlab.downloads}
        job = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": str(run), "GITHUB_RUN_ATTEMPT": str(attempt), "GITHUB_JOB": name, "GITHUB_ACTION": "__self"}
        where = {"GITHUB_SERVER_URL": self.github.url, "GITHUB_API_URL": f"{self.github.url}/api/v3", "GITHUB_REPOSITORY": "octo/train", "RUNNER_NAME": runner}
        return {**self._secrets(), **job, **where}

    def _secrets(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.ec2.url, "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": KEY, "REPO_TOKEN": TOKEN}

    def left(self) -> list[str]:
        """What must not be left at the end of a story: runners, instances, processes."""
        runners = [f"runner {seat.name}" for server in (self.github, self.gitlab) for seat in server.forge.seats()]
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
        self.gitlab.close()
        self.metadata.close()
        shutil.rmtree(self.folder, ignore_errors=True)
