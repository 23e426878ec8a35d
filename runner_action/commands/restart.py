"""`restart`: re-runs a workflow run whose machine was reclaimed, or that waits for one that has
ended.

For a second workflow, so that no machine needs a token: `on: workflow_run`, or on a schedule.
"""

from __future__ import annotations

from runner_action.commands import interrupted, queued
from runner_action.commands.rerun import Outcome
from runner_action.errors import ForgeError
from runner_action.forges.base import Rerunning
from runner_action.request import RestartRequest
from runner_action.waiting import Clock

ALL = 0
"""As `run-id`: every run that waits."""


def restart(request: RestartRequest, forge: Rerunning, clock: Clock) -> Outcome:
    """Re-runs the run of the request, or all that need it (`ALL`). Raises ForgeError if one cannot
    be read, cancelled or re-run."""
    if request.run_id != ALL:
        return _restart(request, forge, clock)
    outcomes: list[Outcome] = []
    failures: list[ForgeError] = []
    for run_id in forge.unfinished():
        try:
            run = forge.run(run_id, clock.now())
            if queued.waits(run):
                outcomes.append(queued.restart(run, (), request, forge, clock))
        except ForgeError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    restarted = "; ".join(outcome.restarted for outcome in outcomes if outcome.restarted)
    summary = "\n".join(outcome.summary for outcome in outcomes)
    return Outcome(restarted, summary or "No run waits for a runner.\n")


def _restart(request: RestartRequest, forge: Rerunning, clock: Clock) -> Outcome:
    run = forge.run(request.run_id, clock.now())
    if not run.done and not queued.waits(run):
        return Outcome("", f"Run {run.id} is still running: nothing to restart.\n")
    if not run.done:
        return queued.restart(run, (), request, forge, clock)
    outcome = interrupted.restart(run, request, forge, clock)
    ended = () if outcome.restarted else queued.given_up(run, forge)
    return queued.restart(run, ended, request, forge, clock) if ended else outcome
