"""The embedded GitHub's list of runs, and the end of a job that no runner takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import request

from runner_action.sandbox.forges.github.runs import Rest, paged
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.forges.memory import Forge

EXPIRED = "The job has exceeded the maximum execution time while awaiting a runner for 24h0m0s"
"""https://github.com/BoundaryML/baml/pull/4680"""


def routes(forge: Forge) -> list[tuple[str, str, Callable[..., Any]]]:
    def listed() -> Any:
        wanted = request.args["status"]
        shown = [
            {**Rest(forge).run(run.id), "status": wanted}
            for run in forge.runs()
            if status(run) == wanted
        ]
        return paged("workflow_runs", shown)

    return [("GET", "/api/v3/repos/<owner>/<name>/actions/runs", listed)]


def status(run: Run) -> str:
    """A run is queued while none of its jobs runs, also between two of them."""
    if run.done:
        return "completed"
    running = any(job.status == "in_progress" for job in run.jobs)
    return "in_progress" if running else "queued"


def expire(forge: Forge, job: Job) -> None:
    """GitHub cancels a job that has waited for a day.
    https://docs.github.com/en/actions/reference/limits"""
    job.notes.append(("", EXPIRED))
    forge.cancel_job(job, force=False)
