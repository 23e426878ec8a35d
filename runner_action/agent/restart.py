"""The restart policy for interrupted workflow runs, used by the agent as it leaves and by
`cml-runner restart`.

The interrupted job needs a machine again, so the job that launched the machine is re-run, with all
jobs that depend on it. If that job is unknown or cannot be re-run, the failed jobs are; failing
that, the whole run. The limits of the user and of GitHub apply.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Callable, List, Optional, Tuple

from .lifecycle import ALWAYS, Leaving
from .spec import AgentSpec

RERUNS = 50
"""GitHub re-runs a run at most 50 times, in whole or in part, always with the same commit.
https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs"""
DAYS = 30
"""GitHub re-runs a run only within 30 days of its first attempt; same page."""
LAUNCH_JOB = "launch job and its dependants"
FAILED_JOBS = "failed jobs"
WHOLE_RUN = "whole run"
LOOK = 0.5
"""Seconds between two checks of a run that has to end."""


@dataclasses.dataclass(frozen=True)
class Job:
    """`status` and `conclusion` as in GitHub's API; `runner`: the name of the runner that took the
    job, empty before that."""

    id: int
    name: str
    status: str
    conclusion: str = ""
    runner: str = ""
    labels: Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """The latest attempt of a run. `age`: seconds since the first attempt."""

    id: int
    attempt: int
    done: bool
    age: float
    jobs: Tuple[Job, ...] = ()


@dataclasses.dataclass(frozen=True)
class Launch:
    """The job that launched the machine. Its id changes with each attempt, its name does not."""

    job: Optional[int] = None
    name: str = ""

    def of(self, run: Run) -> Optional[Job]:
        matches = [job for job in run.jobs if job.id == self.job] or [
            job for job in run.jobs if self.name and job.name == self.name
        ]
        return matches[0] if matches else None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What to re-run, in order of preference; if nothing, `why_not`."""

    order: Tuple[str, ...] = ()
    why_not: str = ""


def over(attempt: int, limit: int, restarts: int = ALWAYS) -> str:
    """Why there must not be another attempt after this one; empty if there may be. `limit`: the
    restarts that the user allows; `restarts`: those that the reason allows
    (`lifecycle.Reason`)."""
    if attempt > limit:
        return "restart-limit %d is reached" % limit
    return "this reason allows only one restart" if attempt > restarts else ""


def decide(
    run: Run, attempt: int, limit: int, launch: Launch, others_lost: bool, restarts: int = ALWAYS
) -> Verdict:
    """Whether and what to re-run. `attempt`: the interrupted one; `limit`, `restarts`: as for
    `over`; `others_lost`: jobs of other machines had to be cancelled with the run, so that only
    a re-run of the whole run restores them."""
    if run.attempt > attempt:
        return Verdict(why_not="attempt %d already exists" % run.attempt)
    if over(attempt, limit, restarts):
        return Verdict(why_not=over(attempt, limit, restarts))
    if attempt > RERUNS:
        return Verdict(why_not="GitHub re-runs a run at most %d times" % RERUNS)
    if run.age > DAYS * 86400:
        return Verdict(why_not="GitHub re-runs a run only within %d days" % DAYS)
    if others_lost:
        return Verdict((WHOLE_RUN,))
    return Verdict(
        (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN) if launch.of(run) else (FAILED_JOBS, WHOLE_RUN)
    )


def tried(job: int, tries: List[int], limit: int, restarts: int = ALWAYS) -> str:
    """The same for GitLab: why the job `job` must not be retried; empty if it may be. `tries`: the
    ids of all tries of that job in its pipeline."""
    if any(other > job for other in tries):
        return "it was already retried"
    return over(len(tries), limit, restarts)


def waits_for(run: Run, labels: Tuple[str, ...]) -> bool:
    """Whether a job of the run waits for a runner with at least one of these labels."""
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
    """Requests the re-runs in order until one is accepted. Returns that one, or "", and why the
    others were refused."""
    refusals: List[str] = []
    for what in verdict.order:
        job = launch.of(run) if what == LAUNCH_JOB else None
        refusal = rerun(what, run.id, job.id if job else None)
        if refusal is None:
            return what, refusals
        refusals.append("%s: %s" % (what, refusal))
    return "", refusals


def needless(run: Run, runner: str, must_have_job: bool) -> str:
    """Why this runner need not restart the run; empty if it must. `must_have_job`: it must only
    if the run has a job on this runner."""
    jobs = [job for job in run.jobs if job.runner == runner]
    if must_have_job and not jobs:
        return "run %d has no job on this runner" % run.id
    if jobs and all(job.conclusion == "success" for job in jobs):
        return "the job succeeded"
    return ""


def cancels_due(waited: float, plan: Leaving) -> int:
    """How often to have cancelled the run after `waited` seconds: first gently, then, at half time,
    by force."""
    return (waited >= plan.gentle) + (waited >= max(plan.restart / 2, plan.gentle))


def has_jobs_of_others(run: Run, runner: str) -> bool:
    """Whether cancelling the run would end jobs of other runners."""
    return any(job.status == "in_progress" and job.runner != runner for job in run.jobs)


def restart(
    calls: Any,
    job: Tuple[str, int, Optional[int]],
    spec: AgentSpec,
    plan: Leaving,
    clock: Any = time,
) -> str:
    """Ends a run as gently as time allows, and re-runs it: the run has `plan.gentle` seconds to end
    by itself, is then cancelled, and at half time cancelled by force. Returns what was done, or
    "not restarted: " and why. Never raises.

    `calls`: has `run`, `cancel` and `rerun` of GitHub; `rerun` returns None if accepted, else why
    not. `job`: repository, run and attempt (None: the latest). If there is a repository, it was
    named by a job, and the run must have a job on this runner. `clock`: has `monotonic` and
    `sleep`.

    It tries until accepted, for `plan.restart` seconds: GitHub may report a run that has just
    ended as still running.
    """
    if not spec.restart_limit:
        return "not restarted: restarting is switched off"
    repository, run_id, attempt = job
    launch = Launch(spec.launch_job, spec.launch_job_name)
    began = clock.monotonic()
    cancels = 0
    others = False
    why = "no response"
    while clock.monotonic() - began < plan.restart:
        try:
            run = calls.run(run_id)
            attempt = attempt or run.attempt
            verdict = decide(run, attempt, spec.restart_limit, launch, others, plan.restarts)
            why_not = verdict.why_not or needless(run, spec.name, bool(repository))
            if why_not:
                return "not restarted: " + why_not
            if run.done:
                accepted, refusals = request(calls.rerun, run, verdict, launch)
                if accepted:
                    return "%s, attempt %d" % (accepted, attempt + 1)
                why = "; ".join(refusals)
            elif cancels < cancels_due(clock.monotonic() - began, plan):
                others = others or has_jobs_of_others(run, spec.name)
                calls.cancel(run_id, cancels > 0)
                cancels += 1
                why = "it did not end when cancelled"
                continue
        except Exception as error:  # GitHub may be back in a moment
            why = "%s: %s" % (type(error).__name__, error)
        clock.sleep(LOOK)
    return "not restarted: " + why
