"""Runs on GitHub that have not ended.

https://docs.github.com/en/rest/actions/workflow-runs and
https://docs.github.com/en/rest/actions/workflow-jobs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from runner_action.agent.restart import Job
from runner_action.forges.github.api import Api
from runner_action.forges.reviving import Try

STATUSES = ("queued", "in_progress")
"""Of a run with a job that waits for a runner. Between two of its jobs a run may have either."""


class Unfinished:
    """A part of `GitHub`."""

    _api: Api
    _runs: str

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
