"""When a workflow run is restarted, and how: one policy, used by the agent as it leaves and by
`cml-runner restart`.

A run is restarted so that there is a machine again: the job that launched it, with all that
depends on it. Where that job is not known or may not be re-run, the failed jobs; at last the
whole run. The user's limit and the forge's are kept.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Callable, List, Optional, Tuple

from .lifecycle import ALWAYS, Leaving
from .spec import AgentSpec

RERUNS = 50
"""GitHub re-runs a run 50 times at most, whole or in part.
https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs"""
DAYS = 30
"""And within 30 days of its first attempt; same page. Always with the same commit."""
LAUNCH_JOB = "launch job and its dependants"
FAILED_JOBS = "failed jobs"
WHOLE_RUN = "whole run"
LOOK = 0.5
"""Seconds between two looks at a run that has to end."""


@dataclasses.dataclass(frozen=True)
class Job:
    """`status` and `conclusion` in GitHub's words; `runner`: name of the runner that took it,
    empty before that."""

    id: int
    name: str
    status: str
    conclusion: str = ""
    runner: str = ""
    labels: Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """The latest attempt of a run, and the seconds since its first."""

    id: int
    attempt: int
    done: bool
    age: float
    jobs: Tuple[Job, ...] = ()


@dataclasses.dataclass(frozen=True)
class Launch:
    """The job that launched the machine: its id changes with each attempt, its name does not."""

    job: Optional[int] = None
    name: str = ""

    def of(self, run: Run) -> Optional[Job]:
        ours = [job for job in run.jobs if job.id == self.job] or [
            job for job in run.jobs if self.name and job.name == self.name
        ]
        return ours[0] if ours else None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What to re-run, first choice first; nothing if it must not be, and why not."""

    order: Tuple[str, ...] = ()
    why_not: str = ""


def over(attempt: int, limit: int, restarts: int = ALWAYS) -> str:
    """Why there must not be another attempt after this one; empty if there may. `limit`: restarts
    the user allows; `restarts`: of what ended it (`lifecycle.Reason`)."""
    if attempt > limit:
        return "restart-limit %d is reached" % limit
    return "what ends so is restarted only once" if attempt > restarts else ""


def decide(
    run: Run, attempt: int, limit: int, launch: Launch, others_lost: bool, restarts: int = ALWAYS
) -> Verdict:
    """`attempt`: the one that was interrupted; `limit`, `restarts`: as for `over`;
    `others_lost`: jobs of other machines had to be cancelled with the run, which only a whole
    re-run brings back."""
    if run.attempt > attempt:
        return Verdict(why_not="attempt %d is there already" % run.attempt)
    if over(attempt, limit, restarts):
        return Verdict(why_not=over(attempt, limit, restarts))
    if attempt > RERUNS:
        return Verdict(why_not="GitHub re-runs a run %d times at most" % RERUNS)
    if run.age > DAYS * 86400:
        return Verdict(why_not="GitHub re-runs a run within %d days only" % DAYS)
    if others_lost:
        return Verdict((WHOLE_RUN,))
    return Verdict(
        (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN) if launch.of(run) else (FAILED_JOBS, WHOLE_RUN)
    )


def tried(job: int, tries: List[int], limit: int, restarts: int = ALWAYS) -> str:
    """GitLab's way to count: ids of all tries of one job of a pipeline. Why there must not be
    another; empty if there may."""
    if any(other > job for other in tries):
        return "it was retried already"
    return over(len(tries), limit, restarts)


def waits_for(run: Run, labels: Tuple[str, ...]) -> bool:
    """A job of the run waits for a runner with labels that only such a one has."""
    return any(
        job.status == "queued" and not job.runner and set(job.labels).intersection(labels)
        for job in run.jobs
    )


def request(
    rerun: Callable[[str, int, Optional[int]], Optional[str]],
    run: Run,
    verdict: Verdict,
    launch: Launch,
) -> Tuple[str, List[str]]:
    """Asks for the re-runs in order until one is granted: that one, empty for none, and why the
    ones before were not."""
    refusals: List[str] = []
    for what in verdict.order:
        job = launch.of(run) if what == LAUNCH_JOB else None
        refused = rerun(what, run.id, job.id if job else None)
        if refused is None:
            return what, refusals
        refusals.append("%s: %s" % (what, refused))
    return "", refusals


def needless(run: Run, runner: str, ours_only: bool) -> str:
    """Why the run needs no restart by this runner; empty if it does. `ours_only`: only a run with
    a job on this runner does."""
    ours = [job for job in run.jobs if job.runner == runner]
    if ours_only and not ours:
        return "no job of run %d is on this runner" % run.id
    if ours and all(job.conclusion == "success" for job in ours):
        return "the job ended well in time"
    return ""


def cancels_due(waited: float, plan: Leaving) -> int:
    """How often the run should have been cancelled after `waited` seconds: gently, then, at half
    time, by force."""
    return (waited >= plan.gentle) + (waited >= max(plan.restart / 2, plan.gentle))


def has_jobs_of_others(run: Run, runner: str) -> bool:
    """Whether cancelling the run ends jobs of other runners."""
    return any(job.status == "in_progress" and job.runner != runner for job in run.jobs)


def restart(
    calls: Any,
    job: Tuple[str, int, Optional[int]],
    spec: AgentSpec,
    plan: Leaving,
    clock: Any = time,
) -> str:
    """Ends a run in the gentlest way that ends it in time, and re-runs it: it has `plan.gentle`
    seconds to end by itself, is then cancelled, and at half time cancelled by force. Returns what
    was done, or "not restarted: " and why. Never raises.

    `calls`: a forge's `run`, `cancel` and `rerun`; `rerun` returns None if granted, else why not.
    `job`: repository, run and attempt (None: the latest). If a job named the repository, the run
    is restarted only if it has a job on this runner. `clock`: has `monotonic` and `sleep`.

    It asks until granted while `plan.restart` seconds last: for the forge, what has just ended may
    still be running.
    """
    if not spec.restart_limit:
        return "not restarted: restarting is switched off"
    repository, run_id, attempt = job
    launch = Launch(spec.launch_job, spec.launch_job_name)
    began = clock.monotonic()
    cancels = 0
    others = False
    why = "no answer"
    while clock.monotonic() - began < plan.restart:
        try:
            run = calls.run(run_id)
            attempt = attempt or run.attempt
            verdict = decide(run, attempt, spec.restart_limit, launch, others, plan.restarts)
            why_not = verdict.why_not or needless(run, spec.name, bool(repository))
            if why_not:
                return "not restarted: " + why_not
            if run.done:
                granted, refusals = request(calls.rerun, run, verdict, launch)
                if granted:
                    return "%s, attempt %d" % (granted, attempt + 1)
                why = "; ".join(refusals)
            elif cancels < cancels_due(clock.monotonic() - began, plan):
                others = others or has_jobs_of_others(run, spec.name)
                calls.cancel(run_id, cancels > 0)
                cancels += 1
                why = "it did not end when cancelled"
                continue
        except Exception as error:  # the forge may be back in a moment
            why = "%s: %s" % (type(error).__name__, error)
        clock.sleep(LOOK)
    return "not restarted: " + why
