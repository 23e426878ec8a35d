"""Re-running a workflow run from outside, as `restart` does."""

from __future__ import annotations

from dataclasses import dataclass

from runner_action.agent import restart as policy
from runner_action.agent.restart import Run
from runner_action.errors import ForgeError
from runner_action.forges.base import Rerunning
from runner_action.waiting import Clock

ENDS = 300.0
"""Seconds until a run that was cancelled has ended at most."""
COMPLETED = 30.0
"""Seconds for which GitHub may report a run as running that it has reported as completed."""
PAUSE = 5.0
"""Seconds between two looks at a run."""


@dataclass(frozen=True)
class Outcome:
    """`restarted`: what was re-run, empty for nothing; `summary`: in Markdown."""

    restarted: str
    summary: str


def rerun(
    run: Run, verdict: policy.Verdict, launch: policy.Launch, forge: Rerunning, clock: Clock
) -> str:
    """Re-runs a run once it has ended, and returns what was re-run. Raises ForgeError. If there is
    a new attempt, a request was accepted whose response was lost."""
    requests = policy.Rerun(forge.rerun)
    why = policy.CANCELLED
    until = clock.monotonic() + (COMPLETED if run.done else ENDS)
    now = run
    while clock.monotonic() < until:
        if now.done:
            granted, refusals = requests.request(now, verdict, launch)
            why = "; ".join(refusals)
            if granted:
                return granted
            if len(refusals) == len(verdict.order) and not any(map(policy.passes, refusals)):
                break
        clock.sleep(PAUSE)
        now = forge.run(run.id, clock.now())
        if now.attempt > run.attempt:
            return verdict.order[0]
    raise ForgeError(
        f"Could not re-run run {run.id}: {why}",
        "The token needs `actions: write`. *Re-run all jobs* creates a new machine.",
    )
