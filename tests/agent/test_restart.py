"""The restart policy and the procedure around it, against a forge in memory whose clock is ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from runner_action.agent import inheriting, restart
from runner_action.agent.plan import Leaving
from runner_action.agent.reasons import ALWAYS, ONCE
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
    others,
    over,
    tried,
    waits_for,
)
from runner_action.agent.spec import AgentSpec
from runner_action.agent.tokens import Unexpected
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
    assert waits_for(run(jobs=(queued,)), "cml-1", ("train-7",))
    assert not waits_for(run(jobs=(queued,)), "cml-1", ("train-8",))
    assert not waits_for(RUN, "cml-1", ("cml",))


def test_a_job_that_has_the_runner_counts_before_its_hook_has_run() -> None:
    given = Job(3, "eval", "in_progress", "", "cml-1", ("other",))
    assert waits_for(run(jobs=(given,)), "cml-1", ("cml",))
    assert not waits_for(run(jobs=(given,)), "cml-2", ("cml",))


@dataclass
class Memory:
    """A GitHub whose run has ended by `ends_at`, or some time after it was cancelled, and is then
    completed `lag` seconds later. Until then it refuses each re-run, as it does `refuses`."""

    jobs_: tuple[Job, ...] = (LAUNCHER, Job(2, "train", "in_progress", "", "cml-1", ("cml",)))
    ends_at: float | None = None
    obeys: str = "cancel"
    refuses: tuple[str, ...] = ()
    refusal: str = "HTTP 404: Not Found"
    down_until: float = 0.0
    lag: float = 0.0
    completes: float = 0.0
    """GitHub says that the run is completed that many seconds before it accepts a re-run."""
    at: float = 0.0
    stops_at: float = 0.0
    """When the runner takes no more jobs."""
    attempt: int = 1
    end: str = "failure"
    lost: frozenset[int] = frozenset()
    members: tuple[int, ...] = ()
    """The runs in the concurrency groups of the run."""
    faults: tuple[str, ...] = ()
    """Calls that fail the first time. A re-run is accepted all the same: its response is lost."""
    calls: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    @property
    def stopped(self) -> bool:
        return self.at >= self.stops_at

    def _done(self, lag: float) -> bool:
        return self.ends_at is not None and self.at >= self.ends_at + lag

    def _fault(self, call: str) -> None:
        if call in self.faults:
            self.faults = tuple(other for other in self.faults if other != call)
            raise OSError("timed out")

    def run(self, run_id: int) -> Run:
        self.reads.append("run")
        self._fault("run")
        if self.at < self.down_until:
            raise OSError("no route to host")
        return Run(run_id, self.attempt, self._done(self.lag), 60)

    def jobs(self, run_id: int) -> tuple[Job, ...]:
        self.reads.append("jobs")
        self._fault("jobs")
        if not self._done(0):
            return self.jobs_
        return tuple(
            replace(job, status="completed", conclusion=job.conclusion or self.end)
            for job in self.jobs_
        )

    def cancel(self, run_id: int, force: bool) -> str | None:
        self.calls.append("force-cancel" if force else "cancel")
        if self.obeys == self.calls[-1] and self.ends_at is None:
            self.ends_at = self.at + 1
        return None

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        self.calls.append(what)
        if not self._done(self.lag + self.completes):
            return "HTTP 403: The workflow run containing this job is already running"
        if what in self.refuses:
            return self.refusal
        self.attempt += 1
        self._fault("rerun")
        return None

    def rivals(self, run_id: int) -> list[int]:
        self.reads.append("rivals")
        self._fault("rivals")
        return list(self.members)

    def hand_over(self, run: Run, launch: int) -> str:
        self.calls.append(f"hand over {launch}")
        return "handed over"

    def handed_over(self, run: Run) -> set[int]:
        self._fault("handed over")
        return set(self.lost)

    def take_back(self, run_id: int) -> None:
        self.calls.append("take back")
        self._fault("take back")

    def spec(self, **changes: object) -> AgentSpec:
        known = {"name": "cml-1", "restart_limit": 5, "labels": ("cml",), "launch_run": 7}
        launch = {"launch_job": KNOWN.job, "launch_job_name": KNOWN.name}
        return replace(SPEC, **{**known, **launch, **changes})  # type: ignore[arg-type]

    def restarting(self, **changes: object) -> restart.Restart:
        return restart.Restart(self, ("", 7, 1), self.spec(**changes), self, lambda: 0.5)

    def restart(self, seconds: float = 20) -> str:
        return self.restarting().restart(Leaving(seconds, seconds / 2))


RIVAL = (
    "run 8 is in the same concurrency group, and might be cancelled by a re-run; re-run this one by"
    " hand when that one has ended"
)
TWICE = [LAUNCH_JOB, LAUNCH_JOB, FAILED_JOBS]
"""One refusal may pass, so the next best is requested only after a second one."""
OTHER = Job(3, "lint", "in_progress", "", "GitHub Actions 2", ("ubuntu-latest",))
QUEUED = Job(3, "eval", "queued", "", "", ("cml",))


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
            "not restarted: the run is not completed yet",
        ),
        (
            Memory(jobs_=(*Memory().jobs_, OTHER)),
            ["hand over 1"],
            "not restarted: 1 other jobs of the run go on; handed over",
        ),
        (
            Memory(jobs_=(*Memory().jobs_, OTHER), ends_at=6),
            ["hand over 1", LAUNCH_JOB, "take back"],
            f"{LAUNCH_JOB}, attempt 2",
        ),
        (
            Memory(jobs_=(*Memory().jobs_, QUEUED)),
            ["cancel", WHOLE_RUN],
            f"{WHOLE_RUN}, attempt 2",
        ),
        (Memory(ends_at=1, lost=frozenset({9})), [WHOLE_RUN], f"{WHOLE_RUN}, attempt 2"),
        (
            Memory(ends_at=0, refuses=(LAUNCH_JOB,)),
            TWICE,
            f"{FAILED_JOBS}, attempt 2",
        ),
        (
            Memory(ends_at=0, refuses=(LAUNCH_JOB, FAILED_JOBS)),
            [*TWICE, LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN],
            f"{WHOLE_RUN}, attempt 2",
        ),
        (Memory(ends_at=0, end="success"), [], "not restarted: the job succeeded"),
        (Memory(ends_at=0, attempt=2), [], "not restarted: attempt 2 already exists"),
        (Memory(ends_at=0, members=(7,)), [LAUNCH_JOB], f"{LAUNCH_JOB}, attempt 2"),
        (Memory(ends_at=0, members=(7, 8)), [], f"not restarted: {RIVAL}"),
        (Memory(ends_at=0, down_until=5), [LAUNCH_JOB], f"{LAUNCH_JOB}, attempt 2"),
        (Memory(down_until=99), [], "not restarted: OSError: no route to host"),
        (
            Memory(ends_at=0, completes=6),
            [LAUNCH_JOB] * 3,
            f"{LAUNCH_JOB}, attempt 2",
        ),
    ],
    ids=[
        "by itself",
        "cancelled",
        "by force",
        "stubborn",
        "others go on",
        "others end in time",
        "waits in vain for a runner like this",
        "others handed over",
        "failed jobs",
        "whole run",
        "ended well",
        "done already",
        "alone in its group",
        "superseded",
        "back in time",
        "down",
        "still running, as GitHub says",
    ],
)
def test_restart(memory: Memory, calls: list[str], outcome: str) -> None:
    assert memory.restart() == outcome
    assert memory.calls == calls
    assert memory.at <= 20 + 0.1
    assert memory.reads.count("jobs") <= 2 + len(calls), "at first, and when it is completed"
    requests = [call for call in calls if call in (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN)]
    most = max(len(requests), memory.members != ())
    assert memory.reads.count("rivals") <= most, "only before a request"


@pytest.mark.parametrize("seconds", [12, 29, 119, 300])
@pytest.mark.parametrize("ends_at", [1, 11])
@pytest.mark.parametrize("lag", [0, 10, 20, 40, 60])
def test_all_of_the_notice_is_used(seconds: int, ends_at: int, lag: int) -> None:
    """The re-run is requested as long as there is time, and accepted whenever GitHub can."""
    memory = Memory(ends_at=ends_at, lag=lag)
    in_time = ends_at + lag < seconds
    assert memory.restart(seconds).startswith(LAUNCH_JOB) is in_time
    latest = ends_at + lag + restart.MOST if in_time else seconds
    assert memory.at <= min(latest, seconds) + 0.1


@pytest.mark.parametrize("alive", [(), (OTHER,), (QUEUED,), (OTHER, QUEUED)])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("limit", [0, 5])
def test_a_run_is_cancelled_only_if_it_is_this_machines_alone(
    alive: tuple[Job, ...], done: bool, limit: int
) -> None:
    memory = Memory(jobs_=(*Memory().jobs_, *alive), ends_at=0 if done else None)
    cancelled = memory.restarting(restart_limit=limit).end(ALWAYS)
    assert cancelled is (limit > 0 and not done and OTHER not in alive)
    assert memory.calls == (["cancel"] if cancelled else [])


BUSY = Job(4, "sweep", "in_progress", "", "cml-2", ("cml",))


@pytest.mark.parametrize(
    ("jobs", "alive", "stuck"),
    [
        ((), 0, 0),
        ((OTHER,), 1, 0),
        ((QUEUED,), 0, 1),
        ((QUEUED, BUSY), 2, 0),
        ((QUEUED, replace(BUSY, labels=("gpu",))), 1, 1),
        ((replace(QUEUED, labels=("gpu",)),), 1, 0),
        ((replace(QUEUED, labels=("ubuntu-latest",)),), 1, 0),
        ((replace(OTHER, status="completed"),), 0, 0),
        ((replace(OTHER, status="waiting", runner=""),), 1, 0),
    ],
    ids=[
        "alone",
        "a hosted job",
        "one that waits for such a runner",
        "which another machine is",
        "or is not",
        "for another one",
        "for GitHub's",
        "ended",
        "for an approval",
    ],
)
def test_the_other_jobs_of_a_run(jobs: tuple[Job, ...], alive: int, stuck: int) -> None:
    found = others(run(jobs=(*Memory().jobs_, *jobs)), "cml-1", ("cml",))
    assert tuple(map(len, found)) == (alive, stuck)


def test_a_leg_of_a_matrix_is_not_launched_alone() -> None:
    """What needs a matrix needs all of its jobs, and so waits for all of its machines."""
    one, other = (replace(LAUNCHER, id=n, name=f"launch ({n})") for n in (1, 5))
    launch = Launch(1, "launch (1)")
    assert decide(run(jobs=(one, TRAIN)), 1, 5, launch, others_lost=False).order[0] == LAUNCH_JOB
    assert decide(run(jobs=(one, other, TRAIN)), 1, 5, launch, others_lost=False).order == (
        WHOLE_RUN,
    )


# --- what others have left to the last machine

LEFT = replace(TRAIN, id=8, runner="cml-2")
DONE = replace(TRAIN, conclusion="success")
NAMESAKES = replace(OTHER, runner="cml-builder-7")
UNLABELLED = replace(OTHER, runner="cml-0123456789-2")


@pytest.mark.parametrize(
    ("memory", "stays", "outcome"),
    [
        (Memory(ends_at=0), True, ""),
        (Memory(ends_at=0, lost=frozenset({1}), jobs_=(LAUNCHER, DONE, LEFT)), True, FAILED_JOBS),
        (Memory(ends_at=0, lost=frozenset({1}), jobs_=(LAUNCHER, DONE, LEFT)), False, LAUNCH_JOB),
        (
            Memory(
                ends_at=0,
                lost=frozenset({1}),
                jobs_=(LAUNCHER, DONE, replace(LEFT, labels=("gpu",))),
            ),
            True,
            LAUNCH_JOB,
        ),
        (Memory(ends_at=0, lost=frozenset({1, 9}), jobs_=(LAUNCHER, LEFT)), False, WHOLE_RUN),
        (Memory(lost=frozenset({1}), jobs_=(LAUNCHER, LEFT, BUSY)), True, ""),
        (Memory(lost=frozenset({1}), jobs_=(LAUNCHER, LEFT, OTHER)), True, ""),
        (
            Memory(ends_at=3, lag=9, lost=frozenset({1}), jobs_=(LAUNCHER, LEFT, OTHER)),
            False,
            LAUNCH_JOB,
        ),
        (
            Memory(ends_at=3, lag=9, lost=frozenset({1}), jobs_=(LAUNCHER, LEFT, NAMESAKES)),
            False,
            LAUNCH_JOB,
        ),
        (Memory(lost=frozenset({1}), jobs_=(LAUNCHER, LEFT, UNLABELLED)), True, ""),
        (
            Memory(ends_at=0, lost=frozenset({1}), attempt=6, jobs_=(LAUNCHER, LEFT)),
            True,
            "not restarted: restart-limit 5 is reached",
        ),
        (
            Memory(ends_at=0, lost=frozenset({1}), jobs_=(LAUNCHER, LEFT), members=(8,)),
            True,
            f"not restarted: {RIVAL}",
        ),
    ],
    ids=[
        "nothing",
        "it runs here",
        "this machine ends",
        "this machine cannot run it",
        "of two launches",
        "not the last",
        "a hosted job goes on for too long",
        "or not",
        "one on a namesake does, too",
        "not the last, by its name",
        "restart-limit",
        "superseded",
    ],
)
def test_the_last_machine_restarts_what_others_have_left(
    memory: Memory, stays: bool, outcome: str
) -> None:
    spec = memory.spec(name="cml-3")
    assert inheriting.inherit(memory, spec, stays, 30, memory) == outcome
    assert memory.at <= 30 + restart.LOOK
    assert ("take back" in memory.calls) is bool(outcome)


def test_nothing_is_re_run_while_the_runner_would_take_it() -> None:
    """It still listens after its job was cancelled, and it is about to be stopped."""
    memory = Memory(stops_at=9, ends_at=1)
    asked: list[float] = []
    rerun = memory.rerun

    def late(what: str, run_id: int, job_id: int | None) -> str | None:
        asked.append(memory.at)
        return rerun(what, run_id, job_id)

    memory.rerun = late  # type: ignore[method-assign]
    outcome = memory.restarting().restart(Leaving(30, 15, runs=True))
    assert outcome == f"{LAUNCH_JOB}, attempt 2"
    assert asked
    assert asked[0] >= 9


FAULTS = ["run", "jobs", "rivals", "handed over", "rerun", "take back"]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_any_call_changes_nothing(fault: str) -> None:
    memory = Memory(jobs_=(*Memory().jobs_, OTHER), ends_at=6, faults=(fault,))
    assert memory.restart(60) == f"{LAUNCH_JOB}, attempt 2"
    assert memory.faults == ()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("stays", "what"), [(True, FAILED_JOBS), (False, LAUNCH_JOB)])
def test_one_fault_takes_nothing_from_the_last_machine(fault: str, stays: bool, what: str) -> None:
    """If it were told that nothing was re-run, it would end, and the jobs wait for it."""
    jobs = (LAUNCHER, DONE, LEFT)
    memory = Memory(ends_at=0, lost=frozenset({1}), jobs_=jobs, faults=(fault,))
    assert inheriting.inherit(memory, memory.spec(name="cml-3"), stays, 30, memory) == what
    assert memory.faults == ()


def test_the_last_machine_does_not_press_a_github_that_refuses_more() -> None:
    memory = Memory(ends_at=0, lost=frozenset({1}), jobs_=(LAUNCHER, DONE, LEFT))
    looks: list[float] = []

    def limited(run_id: int) -> Run:
        looks.append(memory.at)
        raise restart.Later(20)

    memory.run = limited  # type: ignore[method-assign]
    assert inheriting.inherit(memory, memory.spec(name="cml-3"), True, 30, memory) == ""
    assert looks == [0, 20]
    assert memory.at == 30


@pytest.mark.parametrize(
    ("status", "waits"), [(404, False), (401, False), (403, True), (500, True)]
)
def test_a_run_that_is_not_there_is_not_waited_for(status: int, waits: bool) -> None:
    """A job can make up the number of a run, and must not keep its machine by that."""
    memory = Memory()

    def refused(run_id: int) -> Run:
        raise Unexpected(status, f"runs/{run_id}")

    memory.run = refused  # type: ignore[method-assign]
    assert memory.restart() == f"not restarted: HTTP {status} for GET runs/7".replace(
        "restarted: ", "restarted: Unexpected: " if waits else "restarted: "
    )
    assert (memory.at > 15) is waits


def test_a_run_that_was_seen_and_is_not_there_for_a_moment_is_waited_for() -> None:
    memory = Memory(ends_at=6)
    seen = memory.run

    def flickers(run_id: int) -> Run:
        if 1 < memory.at < 5:
            raise Unexpected(404, f"runs/{run_id}")
        return seen(run_id)

    memory.run = flickers  # type: ignore[method-assign]
    assert memory.restart() == f"{LAUNCH_JOB}, attempt 2"


# --- GitHub's limits


@pytest.mark.parametrize("status", [200, 201, 403, 404, 409, 422, 429, 500])
@pytest.mark.parametrize("after", ["", "7", "soon"])
@pytest.mark.parametrize("text", ["", "You have exceeded a secondary rate limit"])
def test_when_to_ask_again(status: int, after: str, text: str) -> None:
    headers = {"Retry-After": after} if after else {}
    limited = status == 429 or (status == 403 and bool(after or text))
    later = restart.later(status, headers, text)
    assert (later is not None) is limited
    assert later is None or later.seconds == (7 if after == "7" else restart.MINUTE)


def test_a_limit_is_waited_for_as_long_as_it_says() -> None:
    memory = Memory(ends_at=0)
    asked: list[float] = []

    def limited(run_id: int) -> Run:
        asked.append(memory.at)
        if memory.at < 40:
            raise restart.Later(40)
        return Run(run_id, 1, True, 60)

    memory.run = limited  # type: ignore[method-assign]
    assert memory.restart(120) == f"{LAUNCH_JOB}, attempt 2"
    assert len(asked) == 2
