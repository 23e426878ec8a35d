"""Generated histories of an interrupted run, against the state of the embedded GitHub: other jobs,
other runs of its concurrency group, earlier attempts, and calls that fail. In simulated time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from runner_action.agent import inheriting
from runner_action.agent.plan import Leaving
from runner_action.agent.reasons import ALWAYS, ONCE
from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB, Job, Later, Restart, Run
from runner_action.ci.base import online_mark
from runner_action.commands.rerun import Outcome
from runner_action.commands.restart import restart
from runner_action.errors import ForgeError
from runner_action.model import ForgeName, Repository, Secret
from runner_action.request import RestartRequest
from runner_action.sandbox.forges import jobs, memory
from tests.agent.test_spec import SPEC
from tests.fakes import FakeClock, FakeForge

OURS, THEIRS = "cml-1", "cml-2"
ASKING = ("rerun", "cancel")
CALLS = ("run", "jobs", "rivals", "rerun", "cancel", "hand_over", "handed_over", "take_back")
FAULTS = ("lost request", "lost response", "rate limit")
SECONDS = 60.0


@dataclass(frozen=True)
class History:
    """`repository`: a job has named the run; `ours`: one of its jobs is on this machine. `hooks`:
    seconds after which the job on this machine ends by itself, the one on another machine, and one
    of GitHub's own; None: there is none, for the latter two. `newer`: seconds after which other
    runs of the group come, whether they cancel what runs, and how long they take. `faults`: the
    call, which one of its kind, and how it fails."""

    repository: str = ""
    ours: bool = True
    attempt: int = 1
    known: bool = True
    limit: int = 5
    restarts: int = ALWAYS
    result: str = "failure"
    ends: tuple[float, float | None, float | None] = (2.0, None, None)
    matrix: bool = False
    queued: bool = False
    group: str = ""
    cancels: bool = False
    newer: tuple[tuple[float, bool, float], ...] = ()
    faults: tuple[tuple[str, int, str], ...] = ()
    runs: bool = False


def histories() -> st.SearchStrategy[History]:
    seconds = st.sampled_from([0.0, 1.0, 4.0, 10.0, 30.0, 100.0])
    maybe = st.none() | seconds
    return st.builds(
        History,
        repository=st.sampled_from(["", "octo/train"]),
        ours=st.sampled_from([True, True, True, False]),
        attempt=st.sampled_from([1, 1, 1, 2, 5, 6]),
        known=st.booleans(),
        limit=st.sampled_from([1, 5, 5]),
        restarts=st.sampled_from([ONCE, ALWAYS]),
        result=st.sampled_from(["failure", "cancelled", "success"]),
        ends=st.tuples(seconds, maybe, maybe),
        matrix=st.booleans(),
        queued=st.booleans(),
        group=st.sampled_from(["", "main"]),
        cancels=st.booleans(),
        newer=st.lists(st.tuples(seconds, st.booleans(), seconds), max_size=3).map(tuple),
        faults=st.lists(
            st.tuples(st.sampled_from(CALLS), st.integers(1, 3), st.sampled_from(FAULTS)),
            max_size=3,
            unique_by=lambda fault: fault[:2],
        ).map(tuple),
        runs=st.booleans(),
    )


@dataclass
class World:
    """GitHub as an agent calls it, and its clock."""

    history: History
    forge: memory.Forge = field(default_factory=memory.Forge)
    at: float = 0.0
    plans: list[tuple[float, Any]] = field(default_factory=list)
    made: list[tuple[Any, ...]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    marks: set[int] = field(default_factory=set)
    others: list[jobs.Run] = field(default_factory=list)
    harmed: list[int] = field(default_factory=list)
    """The runs whose jobs were cancelled, though they were none of this machine's."""
    again: set[str] = field(default_factory=set)
    """The jobs that were re-run."""
    blind: bool = False
    """The last answer about the group was lost."""

    def __post_init__(self) -> None:
        history, forge = self.history, self.forge
        ours, theirs, hosted = history.ends
        run = self.lost = forge.queue_run(history.group, cancels=history.cancels)
        run.attempt = history.attempt
        legs = ("launch (a)", "launch (b)") if history.matrix else ("launch",)
        launches = [self._job(leg, "GitHub Actions 1", "hosted", "success") for leg in legs]
        self.launch = launches[0]
        self.job = self._job("train", OURS if history.ours else "cml-9", "cml")
        self._at(ours, lambda: self._over(self.job, history.result))
        for name, seconds in (("sweep", theirs), ("lint", hosted)):
            if seconds is not None:
                runner = THEIRS if name == "sweep" else "GitHub Actions 2"
                other = self._job(name, runner, "cml" if name == "sweep" else "hosted")
                self._at(seconds, lambda other=other: self._over(other, "success"))
        if history.queued:
            forge.add_job(run, "eval", ["cml"])
        run.entered = True
        forge._settle(run)
        for seconds, cancels, lasts in history.newer:
            self._at(seconds, lambda cancels=cancels, lasts=lasts: self._push(cancels, lasts))
        self.sleep(0)

    def _job(self, name: str, runner: str, label: str, conclusion: str = "") -> jobs.Job:
        needs = [
            job.name for job in self.lost.jobs if job.name.startswith("launch") and not conclusion
        ]
        job = self.forge.add_job(self.lost, name, [label], needs=needs)
        job.runner_name, job.conclusion = runner, conclusion
        job.status = "completed" if conclusion else "in_progress"
        return job

    def _at(self, seconds: float, do: Any) -> None:
        self.plans = sorted([*self.plans, (seconds, do)], key=lambda plan: plan[0])

    def _over(self, job: jobs.Job, conclusion: str) -> None:
        if job.status != "completed":
            job.status, job.conclusion = "completed", conclusion
            self.forge._settle(next(run for run in self._runs if run.id == job.run_id))

    def _push(self, cancels: bool, lasts: float) -> None:
        run = self.forge.queue_run("Main", cancels=cancels)
        job = self.forge.add_job(run, "train", ["cml"])
        self.others.append(run)
        self.forge.begin(run)
        self._at(self.at + lasts, lambda: self._over(job, "success"))

    @property
    def _runs(self) -> list[jobs.Run]:
        return [self.lost, *self.others]

    # --- the clock

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        until = self.at + seconds
        while self.plans and self.plans[0][0] <= until:
            moment, do = self.plans.pop(0)
            self.at = max(self.at, moment)
            do()
            for job in [job for run in self._runs for job in run.jobs if job.cancelled]:
                self._over(job, "cancelled")
        self.at = until

    # --- GitHub

    stopped = True

    def _call(self, name: str, do: Any, *arguments: Any) -> Any:
        self.made.append((name, *arguments))
        self.counts[name] += 1
        faults = {(call, number): fault for call, number, fault in self.history.faults}
        fault = faults.get((name, self.counts[name]))
        if name == "rivals":
            self.blind = fault is not None
        if fault == "rate limit":
            raise Later(5)
        if fault == "lost request":
            raise OSError("timed out")
        before = self._cancelled()
        answer = do()
        self.harmed += sorted(self._cancelled() - before)
        if fault:
            raise OSError("timed out")
        return answer

    def _cancelled(self) -> set[int]:
        """The other runs that have been cancelled."""
        return {run.id for run in self.others if any(job.cancelled for job in run.jobs)}

    def run(self, run_id: int) -> Run:
        assert run_id == self.lost.id
        run = self.lost
        return Run(run_id, *self._call("run", lambda: (run.attempt, run.done, 60.0)))

    def jobs(self, run_id: int) -> tuple[Job, ...]:
        return tuple(self._call("jobs", lambda: list(map(seen, self.lost.jobs)), run_id))

    def rivals(self, run_id: int) -> list[int]:
        members = self.forge.members
        return self._call("rivals", lambda: [run.id for run in members(self.lost.group)], run_id)  # type: ignore[no-any-return]

    def cancel(self, run_id: int, force: bool) -> str | None:
        alive = [job for job in self.lost.jobs if job.status == "in_progress"]
        self.harmed += [job.run_id for job in alive if job.runner_name != OURS]

        def cancel() -> None:
            self.forge.cancel(self.lost, force=force)
            self._at(self.at + 1, lambda: None)

        return self._call("cancel", cancel, run_id)  # type: ignore[no-any-return]

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        def rerun() -> str | None:
            names = {
                FAILED_JOBS: {job.name for job in self.lost.jobs if job.conclusion != "success"},
                LAUNCH_JOB: {job.name for job in self.lost.jobs if job.id == job_id},
            }
            try:
                self.forge.rerun(self.lost, names.get(what))
            except jobs.Refusal as refusal:
                return f"HTTP 403: {refusal}"
            latest = self.lost.attempt
            self.again = {job.name for job in self.lost.jobs if job.attempt == latest}
            return None

        return self._call("rerun", rerun, run_id, what, job_id)  # type: ignore[no-any-return]

    def hand_over(self, _run: Run, launch: int) -> str:
        self._call("hand_over", lambda: self.marks.add(launch))
        return "handed over"

    def handed_over(self, _run: Run) -> set[int]:
        return set(self._call("handed_over", lambda: self.marks))

    def take_back(self, _run_id: int) -> None:
        self._call("take_back", self.marks.clear)


def seen(job: jobs.Job) -> Job:
    labels = tuple(sorted(job.labels))
    return Job(job.id, job.name, job.status, job.conclusion, job.runner_name, labels)


def lived(world: World) -> tuple[str, str]:
    """What the machine of the job says, and then the last machine of the run."""
    history, run = world.history, world.lost
    spec = replace(
        SPEC,
        name=OURS,
        labels=("cml",),
        restart_limit=history.limit,
        launch_run=run.id,
        launch_job=world.launch.id if history.known else None,
        launch_job_name=world.launch.name if history.known else "",
    )
    leaving = Restart(
        world, (history.repository, run.id, history.attempt), spec, world, lambda: 0.5
    )
    try:
        alone = leaving.end(history.restarts)
    except (OSError, Later):
        alone = False
    plan = Leaving(SECONDS, SECONDS / 2, alone, history.restarts, history.runs)
    outcome = leaving.restart(plan)
    assert world.at <= SECONDS + 5.1
    world.sleep(SECONDS)
    if run.attempt > history.attempt or history.ends[1] is None:
        return outcome, ""
    return outcome, inheriting.inherit(world, replace(spec, name=THEIRS), False, 30, world)


def generated(examples: int) -> settings:
    """The same ones each time."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


@given(histories())
@generated(1500)
def test_whatever_happens_to_a_run(history: History) -> None:
    world = World(history)
    outcome, inherited = lived(world)
    restarts = world.lost.attempt - history.attempt
    event(f"{restarts} {(inherited or outcome)[:30]}")
    # It says what it has done, or why not.
    assert outcome.startswith("not restarted: ") is not (restarts == 1 and not inherited)
    assert bool(restarts) is not (inherited or outcome).startswith("not restarted: ")
    assert len(outcome) > len("not restarted: ")
    check(world)
    if history.repository and not history.ours and not inherited:
        assert not any(call[0] in ASKING for call in world.made)


def check(world: World) -> None:
    """Whatever restarts a run."""
    restarts = world.lost.attempt - world.history.attempt
    assert restarts in (0, 1)
    asked = [call for call in world.made if call[0] in ASKING]
    assert {call[1] for call in asked} <= {world.lost.id}, "nothing but this run"
    assert {call[3] for call in asked if call[0] == "rerun"} <= {world.launch.id, None}
    assert not restarts or world.history.attempt <= world.history.limit
    assert world.harmed == [] or world.blind, "another run, of which GitHub has told"
    assert world.counts["rivals"] <= world.counts["rerun"] + 3
    if restarts and world.history.result != "success":
        assert "train" in world.again


class Outside(FakeForge):
    """The same GitHub for `cml-runner restart`, after the machine has gone."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        lost = {job.id: job.name for job in world.lost.jobs}
        marked = "interrupted: the machine is being taken away"
        launched = ("cml-runner", online_mark([OURS, "cml-9"]))
        ours = {number for number, name in lost.items() if name == "train"}
        self.notes = {number: [("cml-runner", marked)] for number in ours}
        if world.history.known:
            self.notes[world.launch.id] = [launched]

    def _told(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError as error:
            raise ForgeError(str(error)) from None

    def run(self, run_id: int, now: datetime) -> Run:
        run: Run = self._told(self.world.run, run_id)
        return replace(run, jobs=self._told(self.world.jobs, run_id))

    def rivals(self, run_id: int) -> Sequence[int]:
        return self._told(self.world.rivals, run_id)  # type: ignore[no-any-return]

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        try:
            return self.world.rerun(what, run_id, job_id)
        except OSError as error:
            return str(error)


@given(histories(), st.sampled_from([0.0, 120.0, 120.0]))
@generated(1000)
def test_whatever_the_other_workflow_finds(history: History, later: float) -> None:
    world = World(replace(history, queued=False))
    world.sleep(later)
    request = RestartRequest(
        forge=ForgeName.GITHUB,
        repository=Repository(url="https://github.com/octo/train"),
        token=Secret("t"),
        run_id=world.lost.id,
        restart_limit=history.limit,
        dry_run=False,
        log="info",
    )
    error = ""
    try:
        outcome = restart(request, Outside(world), FakeClock())
    except ForgeError as raised:
        error = str(raised)
        outcome = Outcome("", "")
    event(error[:20] or outcome.summary[:40])
    assert bool(error) <= bool(history.faults)
    assert error or outcome.restarted or re.search("ot restarted|still running", outcome.summary)
    assert error or bool(outcome.restarted) is (world.lost.attempt > history.attempt)
    check(world)
