"""Workflow runs on GitHub, for `restart`.

https://docs.github.com/en/rest/actions/workflow-runs and
https://docs.github.com/en/rest/actions/workflow-jobs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB, Job, Run
from runner_action.errors import ForgeError
from runner_action.forges.base import Try
from runner_action.forges.github.answers import NotThere
from runner_action.forges.github.api import Api
from runner_action.forges.github.origin import fork_of_run

STATUSES = ("queued", "in_progress")
"""Of a run with a job that waits for a runner. Between two of its jobs a run may have either."""


class Runs:
    """The part of `GitHub` that reads and re-runs the runs of a repository."""

    _api: Api
    _runs: str

    def run(self, run_id: int, now: datetime) -> Run:
        run = self._api.call("GET", f"{self._runs}/{run_id}")
        jobs = self._api.pages(f"{self._runs}/{run_id}/jobs", "jobs")
        return Run(
            run["id"],
            run["run_attempt"],
            run["status"] == "completed",
            age(run["created_at"], now),
            tuple(map(job_of, jobs)),
        )

    def fork(self, run_id: int) -> str | None:
        return fork_of_run(self._api.call("GET", f"{self._runs}/{run_id}"))

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        """A job is a check run with the same ID."""
        path = f"{self._api.root}/check-runs/{job_id}/annotations?per_page=100"
        entries = self._api.call("GET", path)
        return [(entry["title"] or "", entry["message"] or "") for entry in entries]

    def rivals(self, run_id: int) -> Iterator[int]:
        groups = self._api.call("GET", f"{self._runs}/{run_id}/concurrency_groups?per_page=100")
        for group in groups["concurrency_groups"]:
            yield from self._runs_in(group["group_name"])

    def _runs_in(self, group: str) -> Sequence[int]:
        """Of a concurrency group, which GitHub does not know if nothing is in it."""
        path = f"{self._api.root}/actions/concurrency_groups/{quote(group, safe='')}"
        try:
            return [member["run_id"] for member in self._api.call("GET", path)["group_members"]]
        except NotThere:
            return []

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        path = f"{self._runs}/{run_id}/rerun"
        if what == FAILED_JOBS:
            path = f"{self._runs}/{run_id}/rerun-failed-jobs"
        if what == LAUNCH_JOB:
            path = f"{self._api.root}/actions/jobs/{job_id}/rerun"
        try:
            self._api.call("POST", path)
        except ForgeError as error:
            return str(error)
        return None

    def unfinished(self) -> Sequence[int]:
        runs = [
            run["id"]
            for status in STATUSES
            for run in self._api.pages(f"{self._runs}?status={status}", "workflow_runs")
        ]
        return list(dict.fromkeys(runs))

    def tries(self, run_id: int, now: datetime) -> Sequence[Try]:
        jobs = self._api.pages(f"{self._runs}/{run_id}/jobs?filter=all", "jobs")
        return [Try(job_of(job), age(job["created_at"], now)) for job in jobs]

    def cancel(self, run_id: int) -> None:
        self._api.call("POST", f"{self._runs}/{run_id}/cancel")


def age(since: str, now: datetime) -> float:
    """Seconds."""
    return (now - datetime.fromisoformat(since)).total_seconds()


def job_of(entry: Mapping[str, Any]) -> Job:
    return Job(
        entry["id"],
        entry["name"],
        entry["status"],
        entry["conclusion"] or "",
        entry["runner_name"] or "",
        tuple(entry["labels"]),
    )
