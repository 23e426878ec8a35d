"""What a GitLab runner's machine retries as it leaves: histories of one pipeline."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import gitlab_token
from runner_action.agent.plan import Leaving
from runner_action.agent.tokens import Unexpected
from tests.agent.test_spec import SPEC

PROJECT = "octo/train"
RUNNER = 5


@dataclass
class Pipeline:
    """`faults`: names of jobs whose retry is accepted, but whose response is lost. `silent`: how
    many answers are lost first."""

    jobs: list[dict[str, Any]]
    faults: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    silent: int = 0

    def job(self, number: int) -> dict[str, Any]:
        return next(job for job in self.jobs if job["id"] == number)

    def get(self, path: str, timeout: float = 10) -> Any:
        if self.silent:
            self.silent -= 1
            raise OSError(f"timed out after {timeout} s")
        if "/pipelines/" in path:
            return list(self.jobs)
        number = int(path.rsplit("/", 1)[1])
        if not any(job["id"] == number for job in self.jobs):
            raise Unexpected(404, path)
        return self.job(number)

    def cancel(self, number: int) -> None:
        if self.job(number)["status"] == "running":
            cancelled = {**self.job(number), "status": "canceled"}
            self.jobs[self.jobs.index(self.job(number))] = cancelled

    def retry(self, number: int) -> str | None:
        job = self.job(number)
        self.retried.append(job["name"])
        newer = max(other["id"] for other in self.jobs) + 1
        self.jobs.append({**job, "id": newer, "status": "pending", "runner": None})
        if job["name"] in self.faults:
            self.faults.remove(job["name"])
            raise OSError("timed out")
        return None


def job(number: int, name: str, status: str, reason: str = "", runner: int = 1) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "status": status,
        "failure_reason": reason or None,
        "runner": {"id": runner},
        "pipeline": {"id": 7},
        "tag_list": ["gpu"],
    }


LAUNCH = job(1, "launch", "success")
LOST = job(2, "train", "failed", "runner_system_failure", RUNNER)


def outcome(
    pipeline: Pipeline,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    runs: bool = False,
    stops: bool = True,
    deregistered: bool = False,
) -> str:
    class Forge(gitlab_token.Forge):
        def get(self, path: str, timeout: float = 10) -> Any:
            return pipeline.get(path, timeout)

        def post(self, path: str) -> str | None:
            return pipeline.retry(int(path.split("/")[-2]))

        def ask(self, method: str, path: str, *_: Any, **__: Any) -> tuple[int, str]:
            if path.endswith("/cancel"):
                pipeline.cancel(int(path.split("/")[-2]))
            return 201, "{}"

    monkeypatch.setattr(gitlab_token, "LOOK", 0.01)
    spec = dataclasses.replace(
        SPEC,
        forge="gitlab",
        api_token="t",
        runner_id=RUNNER,
        restart_limit=5,
        launch_job=1,
        launch_job_name="launch",
        launch_project=PROJECT,
        labels=("gpu",),
    )
    forge = Forge(spec, folder, {}, {})
    if stops:
        forge.runner_stopped()
    if deregistered:
        forge.end((PROJECT, 2, None), 1)
        pipeline.jobs = [{**one, "runner": None} for one in pipeline.jobs]
    return forge.restart((PROJECT, 2, None), Leaving(0.3, 0.2, runs=runs))


@pytest.mark.parametrize("silent", [0, 1])
def test_whose_job_it_was_is_known_before_gitlab_forgets_it(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline([LAUNCH, LOST], silent=silent)
    assert outcome(pipeline, tmp_path, monkeypatch, deregistered=True) == "launch and train"


@pytest.mark.parametrize("faults", [[], ["launch"], ["train"], ["launch", "train"]])
def test_the_launch_job_and_then_the_job_are_retried_once(
    faults: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether GitLab's response arrives or not."""
    pipeline = Pipeline([LAUNCH, LOST], faults)
    assert outcome(pipeline, tmp_path, monkeypatch) == "launch and train"
    assert pipeline.retried == ["launch", "train"]


def test_gitlabs_own_retry_gets_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`retry:` in the job: its next try already waits for a runner.
    https://docs.gitlab.com/ci/yaml/#retry"""
    pipeline = Pipeline([LAUNCH, LOST, job(3, "train", "pending")])
    assert outcome(pipeline, tmp_path, monkeypatch) == "launch"
    assert pipeline.retried == ["launch"]


@pytest.mark.parametrize("status", ["running", "success", "failed", "canceled"])
def test_a_newer_try_that_does_not_wait_needs_no_machine(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline([LAUNCH, LOST, job(3, "train", status)])
    assert outcome(pipeline, tmp_path, monkeypatch) == "not restarted: it was already retried"
    assert pipeline.retried == []


def test_a_launch_that_runs_again_already_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline([LAUNCH, LOST, job(3, "train", "pending"), job(4, "launch", "running")])
    assert outcome(pipeline, tmp_path, monkeypatch) == "not restarted: it was already retried"
    assert pipeline.retried == []


def test_a_job_that_took_longer_than_its_timeout_has_failed_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://docs.gitlab.com/ci/jobs/job_troubleshooting/"""
    pipeline = Pipeline([LAUNCH, {**LOST, "failure_reason": "job_execution_timeout"}])
    assert outcome(pipeline, tmp_path, monkeypatch) == "not restarted: the job timed out"
    assert pipeline.retried == []


@pytest.mark.parametrize("by_us", [True, False])
def test_a_job_that_others_have_cancelled_is_left_alone(
    by_us: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer pipeline cancels those of an older one that are `interruptible`.
    https://docs.gitlab.com/ci/pipelines/settings/#auto-cancel-redundant-pipelines"""
    pipeline = Pipeline([LAUNCH, job(2, "train", "running" if by_us else "canceled", "", RUNNER)])
    told = outcome(pipeline, tmp_path, monkeypatch)
    why = "not restarted: the job was cancelled by a person or for a newer pipeline"
    assert told == ("launch and train" if by_us else why)
    assert pipeline.retried == (["launch", "train"] if by_us else [])


def test_a_job_that_is_not_there_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job can make up the line that reports one, and must not keep its machine by that."""
    began = time.monotonic()
    why = outcome(Pipeline([]), tmp_path, monkeypatch)
    assert why == "not restarted: HTTP 404 for GET /projects/octo%2Ftrain/jobs/2"
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("stops", [True, False])
def test_nothing_is_retried_while_the_runner_would_take_it(
    stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline([LAUNCH, LOST])
    outcome(pipeline, tmp_path, monkeypatch, runs=True, stops=stops)
    assert pipeline.retried == (["launch", "train"] if stops else [])
