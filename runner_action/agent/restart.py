"""The restart policy for interrupted workflow runs, used by the agent as it leaves and by
`cml-runner restart`.

The interrupted job needs a machine again, so the job that launched the machine is re-run, with all
jobs that depend on it. If that job is unknown or cannot be re-run, the failed jobs are; failing
that, the whole run. The limits of the user and of GitHub apply.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from typing import Any, Callable, Iterable, List, Optional, Tuple

from .plan import Leaving
from .reasons import ALWAYS
from .spec import AgentSpec

RERUNS = 50
"""GitHub re-runs a run at most 50 times, in whole or in part, always with the same commit.
https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs"""
DAYS = 30
"""GitHub re-runs a run only within 30 days of its first attempt; same page."""
LAUNCH_JOB = "launch job and its dependants"
FAILED_JOBS = "failed jobs"
WHOLE_RUN = "whole run"
LOOK = 2.5
MOST = 20.0
"""Seconds until the first check of a run that has to end, and between two checks at most: they are
a fifth of the time that is left. Of two hundred machines that are taken together, all have to stay
within GitHub's limit (`benchmarks/notices.py`)."""
GENTLE = 10.0
"""Seconds for a run to end by itself before it is cancelled."""
MINUTE = 60.0
"""Seconds to wait if GitHub refuses more requests and does not say for how long; its page says at
least a minute."""
CANCELLED = "it did not end when cancelled"


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
    (`reasons.Reason`)."""
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
    job = launch.of(run)
    if others_lost or (job and legs(run, job.name) > 1):
        return Verdict((WHOLE_RUN,))
    return Verdict((LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN) if job else (FAILED_JOBS, WHOLE_RUN))


def legs(run: Run, name: str) -> int:
    """How many jobs of a matrix there are like this one; 1 if it is none. What needs one of them
    needs all, and is re-run with it, but the other machines would not be launched again."""
    matrix = re.match(r"(.*) \(.*\)$", name)
    return 1 if not matrix else sum(job.name.startswith(matrix[1] + " (") for job in run.jobs)


def tried(job: int, tries: List[int], limit: int, restarts: int = ALWAYS) -> str:
    """The same for GitLab: why the job `job` must not be retried; empty if it may be. `tries`: the
    ids of all tries of that job in its pipeline."""
    if any(other > job for other in tries):
        return "it was already retried"
    return over(len(tries), limit, restarts)


def waits_for(run: Run, runner: str, labels: Tuple[str, ...]) -> bool:
    """Whether a job of the run has this runner, or waits for one with at least one of its
    labels."""
    return any(
        job.status != "completed" and job.runner == runner or waits(job, labels) for job in run.jobs
    )


def waits(job: Job, labels: Tuple[str, ...]) -> bool:
    return job.status == "queued" and not job.runner and bool(set(job.labels).intersection(labels))


def others(run: Run, runner: str, labels: Tuple[str, ...]) -> Tuple[List[Job], List[Job]]:
    """The jobs of the run that are not this runner's: those that go on without it, and those that
    wait for a runner like it although there is no other. `labels`: of this runner."""
    left = [job for job in run.jobs if job.status != "completed" and job.runner != runner]
    like = any(job.runner and set(job.labels).intersection(labels) for job in left)
    stuck = [job for job in left if waits(job, labels) and not like]
    return [job for job in left if job not in stuck], stuck


def superseded(run_id: int, rivals: Iterable[int]) -> str:
    """Why a run must not be re-run now; empty if nothing is against it. `rivals`: the runs that run
    or wait in its concurrency groups. A re-run enters them as a new run does: it cancels what waits
    there and, with `cancel-in-progress`, what runs.
    https://docs.github.com/en/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency
    """
    for other in rivals:
        if other != run_id:
            return (
                "run %d is in the same concurrency group, and might be cancelled by a re-run;"
                " re-run this one by hand when that one has ended" % other
            )
    return ""


def rival(calls: Any, run_id: int) -> str:
    """As `superseded`, by what GitHub says. Empty without an answer: the interrupted job is surely
    lost without a restart, and another run only perhaps by one. Raises Later."""
    try:
        return superseded(run_id, calls.rivals(run_id))
    except Later:
        raise
    except Exception:
        return ""


def passes(refusal: str) -> bool:
    """Whether the same request may be accepted in a moment. GitHub still reports a run that has
    just ended as running. The other requests would re-run less or more than is needed."""
    return "already running" in refusal or refusal.startswith(("HTTP 5", "HTTP 429"))


def is_final(error: Exception) -> bool:
    """Whether the first look at a run or job would always fail: it does not exist, as a job can
    make one up, or the token is no longer valid."""
    return getattr(error, "status", 0) in (401, 404)


class Later(OSError):
    """The server accepts no more requests for some `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("GitHub's rate limit is reached")
        self.seconds = seconds


def later(status: int, headers: Any, text: str) -> Optional[Later]:
    """How long to wait after a response; None if it is no refusal of a rate limit.
    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
    """
    after = headers.get("Retry-After", "")
    if status not in (403, 429) or not (after or status == 429 or "rate limit" in text.lower()):
        return None
    return Later(float(after) if after.isdigit() else MINUTE)


class Rerun:
    """Requests re-runs of a run. `rerun`: returns None if a request was accepted, else why not; may
    raise anything, and then the request may have been accepted all the same."""

    def __init__(self, rerun: Callable[[str, int, Optional[int]], Optional[str]]) -> None:
        self._rerun = rerun
        self._unanswered = "", 0
        self._refused: List[str] = []

    def lost(self, run: Run) -> str:
        """What was re-run by a request without a response; empty if nothing was."""
        what, attempt = self._unanswered
        return what if run.attempt > attempt else ""

    def request(self, run: Run, verdict: Verdict, launch: Launch) -> Tuple[str, List[str]]:
        """Requests the re-runs in order until one is accepted, or may be in a moment, as one that
        was refused only once. Returns the accepted one, or "", and why the others were refused."""
        refusals: List[str] = []
        for what in verdict.order:
            job = launch.of(run) if what == LAUNCH_JOB else None
            self._unanswered = what, run.attempt
            refusal = self._rerun(what, run.id, job.id if job else None)
            self._unanswered = "", 0
            if refusal is None:
                return what, refusals
            refusals.append("%s: %s" % (what, refusal))
            if passes(refusal) or what not in self._refused:
                self._refused.append(what)
                break
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


class Restart:
    """The restart of one run by a machine that leaves. `calls`: has `run`, `jobs`, `rivals`,
    `cancel`, `rerun`, `hand_over`, `handed_over` and `take_back` of GitHub, and `stopped`, whether
    the runner takes no more jobs; `cancel` and `rerun` return None if accepted, else why not.
    `job`: repository, run and attempt (None: the latest). If there is a repository, it was named by
    a job, and the run must have a job on this runner. `clock`: has `monotonic` and `sleep`;
    `chance`: a random number of [0, 1)."""

    def __init__(
        self,
        calls: Any,
        job: Tuple[str, int, Optional[int]],
        spec: AgentSpec,
        clock: Any = time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.calls = calls
        self.repository, self.run_id, self.attempt = job
        self.spec = spec
        self.clock = clock
        self.chance = chance
        self.launch = Launch(spec.launch_job, spec.launch_job_name)
        self.run: Optional[Run] = None
        """With its jobs, as last read."""
        self.stuck = False
        """Jobs of other launches are lost, too."""
        self.handed = ""
        self.rerun = Rerun(calls.rerun)

    def look(self, restarts: int) -> Tuple[Run, Verdict]:
        """The run, whose jobs are read only at first and when it is completed, and what to do."""
        run: Run = self.calls.run(self.run_id)
        if self.run is None or run.done:
            self.run = dataclasses.replace(run, jobs=self.calls.jobs(self.run_id))
            if run.done:
                job = self.launch.of(self.run)
                self.stuck |= bool(self.calls.handed_over(run) - {job.id if job else 0})
        run = dataclasses.replace(run, jobs=self.run.jobs)
        self.attempt = self.attempt or run.attempt
        limit = self.spec.restart_limit
        verdict = decide(run, self.attempt, limit, self.launch, self.stuck, restarts)
        why = verdict.why_not or needless(run, self.spec.name, bool(self.repository))
        return run, Verdict(why_not=why) if why else verdict

    def end(self, restarts: int) -> bool:
        """Cancels the run if nothing else runs in it. Returns whether it did."""
        run, verdict = self.look(restarts)
        alive, stuck = others(run, self.spec.name, self.spec.labels)
        if verdict.why_not or run.done or alive:
            return False
        self.stuck |= self._had_job and bool(stuck)
        return self.calls.cancel(self.run_id, False) is None

    def restart(self, plan: Leaving) -> str:
        """Re-runs the run as soon as GitHub accepts it, within `plan.seconds`. Returns what was
        done, or "not restarted: " and why. Never raises."""
        began = self.clock.monotonic()
        cancels = int(plan.cancelled)
        why = "no response"
        looks = 0
        while self.clock.monotonic() - began < plan.seconds:
            looks += 1
            left = began + plan.seconds - self.clock.monotonic()
            pause = pause_of(looks, left, self.chance())
            try:
                run, verdict = self.look(plan.restarts)
                outcome = self._accepted(self.rerun.lost(run))
                if verdict.why_not and not outcome:
                    return "not restarted: " + verdict.why_not
                waited = self.clock.monotonic() - began
                if run.done and not outcome:
                    outcome, why = self._request(run, verdict, plan, began)
                if outcome:
                    return outcome
                if not run.done:
                    why = self._wait_for(run, cancels, waited, plan)
                    cancels += why == CANCELLED
            except Later as error:
                why = str(error)
                spread = min(error.seconds / 3, left - error.seconds - LOOK)
                pause = error.seconds + max(spread, 0.0) * self.chance()
            except Exception as error:  # GitHub may be back in a moment
                if self.run is None and is_final(error):
                    return "not restarted: %s" % error
                why = "%s: %s" % (type(error).__name__, error)
            left = began + plan.seconds - self.clock.monotonic()
            # The last look comes a second before the end.
            self.clock.sleep(max(min(pause, left - 1 if left > 1 else left), 0.01))
        return "not restarted: " + why

    def _request(self, run: Run, verdict: Verdict, plan: Leaving, began: float) -> Tuple[str, str]:
        """As `Rerun.request`, once the runner takes no more jobs. Returns the outcome, or "" and
        why there is none yet."""
        while plan.runs and not self.calls.stopped:
            if self.clock.monotonic() - began >= plan.seconds:
                return "", "the runner did not stop"
            self.clock.sleep(0.2)
        why = rival(self.calls, run.id)
        if why:
            return "not restarted: " + why, ""
        accepted, refusals = self.rerun.request(run, verdict, self.launch)
        return self._accepted(accepted), "; ".join(refusals)

    def _accepted(self, what: str) -> str:
        """The outcome of an accepted re-run, and "" of none."""
        if what and self.handed:
            take_back(self.calls, self.run_id)
        return what and "%s, attempt %d" % (what, (self.attempt or 0) + 1)

    @property
    def _had_job(self) -> bool:
        """Otherwise the job that waits is the one that this machine was launched for."""
        assert self.run
        return any(job.runner == self.spec.name for job in self.run.jobs)

    def _wait_for(self, run: Run, cancels: int, waited: float, plan: Leaving) -> str:
        """Cancels a run that does not end, if nothing else runs in it; hands it over if something
        does. Returns what it is waiting for."""
        alive, stuck = others(run, self.spec.name, self.spec.labels)
        if alive:
            if not self.handed:
                job = self.launch.of(run)
                self.handed = self.calls.hand_over(run, job.id if job else 0)
            return "%d other jobs of the run go on; %s" % (len(alive), self.handed)
        if cancels < cancels_due(waited, plan.force):
            self.stuck |= self._had_job and bool(stuck)
            self.calls.cancel(self.run_id, cancels > 0)
            return CANCELLED
        return "the run is not completed yet"


def pause_of(looks: int, left: float, chance: float) -> float:
    """The seconds until the next check, after so many, if `left` remain. `chance`, of [0, 1),
    spreads machines that are taken together."""
    seconds = min(left / 5, MOST) if looks > 1 else 0.0
    return max(seconds, LOOK) * (0.8 + 0.4 * chance)


def cancels_due(waited: float, force: float) -> int:
    """How often to have cancelled the run after `waited` seconds: first gently, then by force."""
    return (waited >= min(GENTLE, force / 2)) + (waited >= force)


def take_back(calls: Any, run_id: int) -> None:
    """Removes the mark of a run that has been restarted. One that stays means nothing for the
    next attempt, and GitHub removes it after a day."""
    with contextlib.suppress(Exception):
        calls.take_back(run_id)
