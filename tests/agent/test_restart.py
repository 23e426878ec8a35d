"""The restart policy and the procedure around it, against a forge in memory whose clock is ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from runner_action.agent import restart
from runner_action.agent.lifecycle import ALWAYS, ONCE, Leaving
from runner_action.agent.restart import (
    DAYS,
    FAILED_JOBS,
    LAUNCH_JOB,
    RERUNS,
    WHOLE_RUN,
    Job,
    Launch,
    Run,
    decide,
    over,
    tried,
    waits_for,
)
from tests.agent.test_spec import SPEC

LAUNCHER = Job(1, "launch", "completed", "success", "GitHub Actions 1")
TRAIN = Job(2, "train", "completed", "failure", "cml-1", ("cml",))
RUN = Run(7, 1, True, 60, (LAUNCHER, TRAIN))
KNOWN = Launch(1, "launch")


def run(**changes: object) -> Run:
    return Run(
        **{"id": 7, "attempt": 1, "done": True, "age": 60, "jobs": (LAUNCHER, TRAIN), **changes}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("latest", "attempt", "limit", "launch", "others", "order", "why_not"),
    [
        (RUN, 1, 5, KNOWN, False, (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN), ""),
        (RUN, 1, 5, Launch(99, "launch"), False, (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN), ""),
        (RUN, 1, 5, Launch(), False, (FAILED_JOBS, WHOLE_RUN), ""),
        (RUN, 1, 5, KNOWN, True, (WHOLE_RUN,), ""),
        (run(attempt=5), 5, 5, KNOWN, False, (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN), ""),
        (run(attempt=6), 6, 5, KNOWN, False, (), "restart-limit 5 is reached"),
        (RUN, 1, 0, KNOWN, False, (), "restart-limit 0 is reached"),
        (run(attempt=2), 1, 5, KNOWN, False, (), "attempt 2 already exists"),
        (
            run(attempt=RERUNS + 1),
            RERUNS + 1,
            1000,
            KNOWN,
            False,
            (),
            "GitHub re-runs a run at most 50 times",
        ),
        (
            run(age=DAYS * 86400 + 1),
            1,
            5,
            KNOWN,
            False,
            (),
            "GitHub re-runs a run only within 30 days",
        ),
    ],
    ids=[
        "launch job first",
        "known by its name",
        "not known",
        "others were lost",
        "last time",
        "user's limit",
        "off",
        "somebody was faster",
        "forge's limit",
        "too old",
    ],
)
def test_decide(
    latest: Run,
    attempt: int,
    limit: int,
    launch: Launch,
    others: bool,
    order: tuple[str, ...],
    why_not: str,
) -> None:
    verdict = decide(latest, attempt, limit, launch, others)
    assert (verdict.order, verdict.why_not) == (order, why_not)


@pytest.mark.parametrize(("attempt", "limit"), [(1, 5), (2, 5), (1, 0), (2, 1), (5, 5), (6, 5)])
@pytest.mark.parametrize("restarts", [ONCE, ALWAYS])
def test_how_often(attempt: int, limit: int, restarts: int) -> None:
    """The user's limit is the upper bound; both ways to count, GitHub's by attempts and GitLab's
    by tries, and the mark agree."""
    why = over(attempt, limit, restarts)
    assert bool(why) is (attempt > min(limit, restarts))
    assert (
        decide(
            run(attempt=attempt), attempt, limit, KNOWN, others_lost=False, restarts=restarts
        ).why_not
        == why
    )
    assert tried(attempt, [*range(1, attempt + 1)], limit, restarts) == why
    assert ("restart-limit" in why) is (attempt > limit)


def test_a_job_waits_for_a_machine_by_its_labels() -> None:
    queued = Job(3, "eval", "queued", labels=("self-hosted", "train-7"))
    assert waits_for(run(jobs=(queued,)), ("train-7",))
    assert not waits_for(run(jobs=(queued,)), ("train-8",))
    assert not waits_for(RUN, ("cml",))


@dataclass
class Memory:
    """A run that ends when cancelled, or `ends_at` a time, or only by force. `busy`: calls that
    are refused first."""

    jobs: tuple[Job, ...] = (LAUNCHER, Job(2, "train", "in_progress", "", "cml-1", ("cml",)))
    ends_at: float | None = None
    obeys: str = "cancel"
    refuses: tuple[str, ...] = ()
    down_until: float = 0.0
    at: float = 0.0
    attempt: int = 1
    end: str = "failure"
    calls: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def run(self, run_id: int) -> Run:
        if self.at < self.down_until:
            raise OSError("no route to host")
        done = self.ends_at is not None and self.at >= self.ends_at
        jobs = (
            tuple(
                Job(
                    job.id,
                    job.name,
                    "completed",
                    job.conclusion or self.end,
                    job.runner,
                    job.labels,
                )
                for job in self.jobs
            )
            if done
            else self.jobs
        )
        return Run(run_id, self.attempt, done, 60, jobs)

    def cancel(self, run_id: int, force: bool) -> str | None:
        self.calls.append("force-cancel" if force else "cancel")
        if self.obeys == self.calls[-1]:
            self.ends_at = self.at + 1
        return None

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        self.calls.append(what)
        return "403" if what in self.refuses else None

    def restart(self, seconds: float = 20, limit: int = 5) -> str:
        spec = replace(
            SPEC,
            name="cml-1",
            restart_limit=limit,
            launch_job=KNOWN.job,
            launch_job_name=KNOWN.name,
        )
        plan = Leaving(checkpoint=0, gentle=2, stop=seconds, restart=seconds, total=seconds)
        return restart.restart(self, ("", 7, 1), spec, plan, clock=self)


OTHER = Job(3, "lint", "in_progress", "", "GitHub Actions 2")


@pytest.mark.parametrize(
    ("memory", "calls", "outcome"),
    [
        (Memory(ends_at=1), [LAUNCH_JOB], f"{LAUNCH_JOB}, attempt 2"),
        (Memory(), ["cancel", LAUNCH_JOB], f"{LAUNCH_JOB}, attempt 2"),
        (
            Memory(obeys="force-cancel"),
            ["cancel", "force-cancel", LAUNCH_JOB],
            f"{LAUNCH_JOB}, attempt 2",
        ),
        (
            Memory(obeys="nothing"),
            ["cancel", "force-cancel"],
            "not restarted: it did not end when cancelled",
        ),
        (Memory(jobs=(*Memory().jobs, OTHER)), ["cancel", WHOLE_RUN], f"{WHOLE_RUN}, attempt 2"),
        (
            Memory(ends_at=0, refuses=(LAUNCH_JOB,)),
            [LAUNCH_JOB, FAILED_JOBS],
            f"{FAILED_JOBS}, attempt 2",
        ),
        (
            Memory(ends_at=0, refuses=(LAUNCH_JOB, FAILED_JOBS)),
            [LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN],
            f"{WHOLE_RUN}, attempt 2",
        ),
        (Memory(ends_at=0, end="success"), [], "not restarted: the job succeeded"),
        (Memory(ends_at=0, attempt=2), [], "not restarted: attempt 2 already exists"),
        (Memory(ends_at=0, down_until=5), [LAUNCH_JOB], f"{LAUNCH_JOB}, attempt 2"),
        (Memory(down_until=99), [], "not restarted: OSError: no route to host"),
    ],
    ids=[
        "by itself",
        "cancelled",
        "by force",
        "stubborn",
        "others lost",
        "failed jobs",
        "whole run",
        "ended well",
        "done already",
        "back in time",
        "down",
    ],
)
def test_restart(memory: Memory, calls: list[str], outcome: str) -> None:
    assert memory.restart() == outcome
    assert memory.calls == calls
    assert memory.at <= 20 + restart.LOOK


def test_switched_off_asks_nothing() -> None:
    memory = Memory(down_until=99)
    assert memory.restart(limit=0) == "not restarted: restarting is switched off"
    assert memory.at == 0


def test_what_has_just_ended_may_be_held_for_running_for_a_while() -> None:
    memory = Memory(ends_at=0, refuses=(LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN))
    assert memory.restart(3).startswith("not restarted: launch job and its dependants: 403")
    assert memory.calls.count(LAUNCH_JOB) == 6
