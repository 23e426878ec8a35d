"""The last machine of a run restarts what others have handed over (`restart.py`)."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any, Optional, Tuple

from .restart import (
    FAILED_JOBS,
    LOOK,
    Job,
    Launch,
    Rerun,
    Run,
    Verdict,
    decide,
    is_final,
    passes,
    rival,
    take_back,
)
from .spec import AgentSpec

DERIVED = re.compile("cml-[0-9a-f]{10}")
"""The name of a launch without a requested one, and the label that only its runners have
(`model.Run.derived_name`)."""


def inherit(calls: Any, spec: AgentSpec, stays: bool, seconds: float, clock: Any = time) -> str:
    """Restarts what other machines of this machine's run have handed over, if this machine is the
    last: it ends without a job of its own. Within `seconds`, of which a run needs some until it is
    completed. `stays`: this machine may go on, and then needs no other for what is re-run. Returns
    what was re-run, or "not restarted: " and why; empty if nothing was handed over, or others come
    later."""
    began = clock.monotonic()
    rerun = Rerun(calls.rerun)
    while clock.monotonic() - began < seconds:
        pause = LOOK
        try:
            what = _inherited(calls, spec, stays, rerun)
            if what is not None:
                return what
        except Exception as error:  # GitHub may be back in a moment, or `Later`
            if is_final(error):
                return ""
            pause = getattr(error, "seconds", LOOK)
        clock.sleep(min(pause, max(began + seconds - clock.monotonic(), 0.01)))
    return ""


def _inherited(calls: Any, spec: AgentSpec, stays: bool, rerun: Rerun) -> Optional[str]:
    """As `inherit`; None if there may be something to do later."""
    assert spec.launch_run
    run: Run = calls.run(spec.launch_run)
    accepted = rerun.lost(run)
    if not accepted:
        launches = calls.handed_over(run)
        if not launches:
            return ""
        run = dataclasses.replace(run, jobs=calls.jobs(run.id))
        if any(job.status != "completed" and of_ours(job, spec.labels) for job in run.jobs):
            return ""  # its machine comes later
        if not run.done:
            return None
        launch = Launch(max(launches))
        verdict = decide(run, run.attempt, spec.restart_limit, launch, len(launches) > 1)
        if stays and verdict.order and all(fits(job, spec.labels) for job in run.jobs):
            verdict = Verdict((FAILED_JOBS,))
        why = verdict.why_not or rival(calls, run.id)
        if not why:
            accepted, refusals = rerun.request(run, verdict, launch)
            why = "; ".join(refusals)
            if not accepted and any(map(passes, refusals)):
                return None
    take_back(calls, run.id)
    return accepted or "not restarted: " + why


def of_ours(job: Job, labels: Tuple[str, ...]) -> bool:
    """Whether a machine of cml-runner has this job, or one like this will get it."""
    return bool(DERIVED.match(job.runner)) or bool(set(job.labels).intersection(labels))


def fits(job: Job, labels: Tuple[str, ...]) -> bool:
    """Whether a runner with these labels can run the job again, if that is needed."""
    return job.conclusion in ("success", "skipped") or set(job.labels) <= set(labels)
