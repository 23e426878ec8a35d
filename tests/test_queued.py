"""`cml-runner restart` of runs that have not ended: does a job wait for a machine that is gone, as
after "Re-run failed jobs"?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from runner_action import inputs
from runner_action.agent.restart import (
    DAYS,
    FAILED_JOBS,
    LAUNCH_JOB,
    RERUNS,
    WHOLE_RUN,
    Job,
    Launch,
    Run,
)
from runner_action.ci.base import MARK_TITLE, online_mark
from runner_action.commands.queued import NO_MACHINE, SURE, UNSURE, Sight, find
from runner_action.commands.rerun import Outcome
from runner_action.commands.restart import ALL, restart
from runner_action.errors import AuthError, ForgeError
from runner_action.forges.base import Try
from runner_action.model import ForgeName, Repository, Runner, Secret
from runner_action.request import RestartRequest
from tests.fakes import FakeClock, FakeForge

ROOT = Path(__file__).parents[1]
OWN = "cml-0123456789"
LAUNCHED = Job(11, "launch", "completed", "success", "GitHub Actions 7", ("ubuntu-latest",))
WAITS = Job(12, "train", "queued", "", "", (OWN,))
RUNS = Job(13, "evaluate", "in_progress", "", OWN, (OWN,))
HOSTED = Job(14, "lint", "queued", "", "", ("ubuntu-latest",))
SECOND = replace(LAUNCHED, id=15, name="launch-b")
RUN = Run(7, 2, False, 7200.0, (LAUNCHED, WAITS))
CHOSEN = replace(RUN, jobs=(LAUNCHED, replace(WAITS, labels=("self-hosted", "gpu"))))
MARKED = {"launch": ["trainer-1"]}
TOGETHER = {"launch": [OWN], "launch-b": ["cml-9999999999"]}
LONG = UNSURE + 1


def runner(*labels: str, online: bool = True) -> Runner:
    return Runner(id=1, name="one", labels=frozenset(labels), online=online, busy=True)


@dataclass(frozen=True)
class Case:
    """A run, and what is to be re-run, or why nothing is."""

    order: tuple[str, ...] = ()
    why: str = ""
    run: Run = RUN
    waited: float = LONG
    launches: Mapping[str, Sequence[str]] = field(default_factory=lambda: MARKED)
    runners: Sequence[Runner] | None = None
    given_up: frozenset[int] = frozenset()
    limit: int = 5
    launch: str = "launch"


AGAIN = (LAUNCH_JOB, WHOLE_RUN)
GONE = "no job of it waits for a machine that is gone"
CASES = {
    "re-run failed jobs, the token sees no runners": Case(AGAIN),
    "a first attempt, whose machine died before it": Case(AGAIN, run=replace(RUN, attempt=1)),
    "a few minutes are not enough without the list": Case(why="waited for 300 s", waited=300.0),
    "with the list they are": Case(AGAIN, waited=SURE, runners=[]),
    "a moment is not": Case(why="waited for 119 s", waited=SURE - 1, runners=[]),
    "a runner that is busy with something else": Case(why=GONE, runners=[runner(OWN, "x")]),
    "one that is offline": Case(AGAIN, runners=[runner(OWN, online=False)]),
    "one with other labels": Case(AGAIN, runners=[runner("cml-aaaaaaaaaa", "gpu")]),
    "another job of the run runs": Case(
        why="other jobs of it go on: `evaluate`", run=replace(RUN, jobs=(*RUN.jobs, RUNS))
    ),
    "another job is about to run": Case(
        why="other jobs of it go on: `lint`", run=replace(RUN, jobs=(*RUN.jobs, HOSTED))
    ),
    "a job that waits for GitHub's own machine": Case(
        why=GONE, run=replace(RUN, jobs=(LAUNCHED, HOSTED))
    ),
    "labels of the user's, without the list": Case(why=GONE, run=CHOSEN),
    "labels of the user's, and no runner with them": Case(AGAIN, run=CHOSEN, runners=[]),
    "labels of the user's, in other letters": Case(
        why=GONE, run=CHOSEN, runners=[runner("Self-Hosted", "GPU")]
    ),
    "labels of the user's, in a run without a launch": Case(
        why=GONE, run=CHOSEN, runners=[], launches={}
    ),
    "an own label of a launch that left no mark": Case((WHOLE_RUN,), launches={}, launch=""),
    "of two launches the one that is meant": Case(
        AGAIN, run=replace(RUN, jobs=(*RUN.jobs, SECOND)), launches=TOGETHER
    ),
    "of two launches nobody knows which": Case(
        (WHOLE_RUN,), launches={**MARKED, "launch-b": ["trainer-2"]}, launch=""
    ),
    "a leg of a matrix of launches": Case(
        (WHOLE_RUN,),
        run=replace(
            RUN,
            jobs=(
                replace(LAUNCHED, name="launch (a)"),
                replace(LAUNCHED, id=16, name="launch (b)"),
                WAITS,
            ),
        ),
        launches={"launch (a)": [OWN]},
        launch="launch (a)",
    ),
    "GitHub gave up after a day": Case(
        AGAIN,
        run=replace(RUN, done=True, jobs=(LAUNCHED, replace(WAITS, status="completed"))),
        waited=0.0,
        given_up=frozenset({WAITS.id}),
    ),
    "the job says so itself, on another machine": Case(
        AGAIN,
        run=replace(RUN, done=True, jobs=(LAUNCHED, replace(HOSTED, status="completed"))),
        given_up=frozenset({HOSTED.id}),
    ),
    "GitHub gave up on a machine of others": Case(
        why=GONE,
        run=replace(RUN, done=True, jobs=(LAUNCHED, replace(HOSTED, status="completed"))),
        given_up=frozenset({HOSTED.id}),
        launches={},
    ),
    "restart-limit": Case(why="restart-limit 5 is reached", run=replace(RUN, attempt=6)),
    "restart-limit of none": Case(why="restart-limit 0 is reached", limit=0),
    "GitHub's limit": Case(
        why="at most 50 times", run=replace(RUN, attempt=RERUNS + 1), limit=99
    ),
    "GitHub's thirty days": Case(
        why="only within 30 days", run=replace(RUN, age=DAYS * 86400 + 1.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_done_about_a_job_that_waits(case: Case) -> None:
    ages = {job.id: case.waited for job in case.run.jobs}
    finding = find(Sight(case.run, ages, case.launches, case.runners, case.given_up), case.limit)
    assert (finding.verdict.order, FAILED_JOBS in finding.verdict.order) == (case.order, False)
    assert case.why in finding.verdict.why_not
    if case.order:
        assert finding.launch == Launch(name=case.launch)


class Forge(FakeForge):
    """`all_tries`: the jobs of all attempts of a run. A run that is cancelled ends after `ends`
    looks."""

    def __init__(self, run: Run = RUN, *, lists: bool = False, ends: int = 2) -> None:
        super().__init__()
        self.runs[run.id] = run
        self.notes = {1: [(MARK_TITLE, online_mark([OWN]))]}
        self.all_tries = [replace(LAUNCHED, id=1), *run.jobs]
        self.waited = LONG
        self._ends = ends
        if not lists:
            self.trouble["runners"] = AuthError("no", "hint")

    def tries(self, run_id: int, now: datetime) -> Sequence[Try]:
        return [Try(job, self.waited) for job in self.all_tries]

    def run(self, run_id: int, now: datetime) -> Run:
        run = super().run(run_id, now)
        if run_id in self.cancelled:
            self._ends -= 1
        return replace(run, done=True) if self._ends < 0 else run


def outcome_of(
    forge: Forge, run_id: int = RUN.id, *, dry_run: bool = False, allow_forks: bool = False
) -> Outcome:
    request = RestartRequest(
        forge=ForgeName.GITHUB,
        repository=Repository(url="https://github.com/octo/train"),
        token=Secret("t"),
        log="info",
        run_id=run_id,
        restart_limit=5,
        dry_run=dry_run,
        allow_forks=allow_forks,
    )
    return restart(request, forge, FakeClock())


def test_it_is_cancelled_and_then_re_run_from_its_launch_job_of_this_attempt() -> None:
    """The mark is that of the first attempt's job, which has another ID than its copy."""
    forge = Forge()
    outcome = outcome_of(forge)
    assert (outcome.restarted, forge.cancelled) == (LAUNCH_JOB, [7])
    assert forge.reruns == [(LAUNCH_JOB, 7, LAUNCHED.id)]
    assert f"attempt 3\n\n- `train` needs a runner with {OWN}" in outcome.summary


def test_what_is_left_alone_is_told() -> None:
    forge = Forge(replace(RUN, jobs=(*RUN.jobs, RUNS)))
    assert "not touched: other jobs of it go on" in outcome_of(forge).summary
    assert forge.cancelled == []
    nothing = Forge(replace(RUN, jobs=(LAUNCHED, RUNS)))
    assert "still running" in outcome_of(nothing).summary
    assert nothing.calls == ["run"], "a run in which nothing waits costs one request"


def test_a_job_that_begins_meanwhile_is_not_cancelled() -> None:
    class Moving(Forge):
        def run(self, run_id: int, now: datetime) -> Run:
            seen = super().run(run_id, now)
            begun = replace(WAITS, status="in_progress", runner=OWN)
            self.runs[run_id] = replace(seen, jobs=(LAUNCHED, begun))
            return seen

    forge = Moving()
    assert "has just begun" in outcome_of(forge).summary
    assert forge.cancelled == []


def test_a_run_that_another_one_waits_behind_is_not_cancelled() -> None:
    """It would leave its concurrency group, and come back to cancel what has begun meanwhile."""
    forge = Forge()
    forge.in_groups = [7, 8]
    assert "not touched: run 8 is in the same concurrency group" in outcome_of(forge).summary
    assert (forge.cancelled, forge.reruns) == ([], [])


def test_a_dry_run_only_tells() -> None:
    forge = Forge()
    assert "Would re-run: launch job and its dependants of run 7" in (
        outcome_of(forge, dry_run=True).summary
    )
    assert (forge.cancelled, forge.reruns) == ([], [])


def test_a_forks_run_is_left_alone() -> None:
    forge = Forge()
    forge.forks[7] = "mallory/train"
    assert "code of `mallory/train`" in outcome_of(forge).summary
    assert forge.cancelled == []
    assert outcome_of(forge, allow_forks=True).restarted == LAUNCH_JOB


def test_what_github_refuses_is_told_with_a_way_out() -> None:
    forge = Forge()
    forge.refuses = (LAUNCH_JOB, WHOLE_RUN)
    with pytest.raises(ForgeError, match="launch job and its dependants: refused") as caught:
        outcome_of(forge)
    assert "Re-run all jobs" in caught.value.hint
    with pytest.raises(ForgeError, match="did not end when cancelled"):
        outcome_of(Forge(ends=1000))


def test_a_job_that_waited_for_a_day_is_re_run_but_not_one_that_a_person_cancelled() -> None:
    over = replace(WAITS, status="completed", conclusion="cancelled")
    forge = Forge(replace(RUN, done=True, jobs=(LAUNCHED, over)))
    assert "was not interrupted" in outcome_of(forge).summary
    text = "The job has exceeded the maximum execution time while awaiting a runner for 24h0m0s"
    forge.notes[over.id] = [("", text)]
    assert outcome_of(forge).restarted == LAUNCH_JOB
    assert forge.cancelled == []


def test_a_job_that_ran_elsewhere_and_says_why_is_re_run() -> None:
    """As docs/restart.md has it: elsewhere the job fails at once."""
    told = replace(HOSTED, status="completed", conclusion="failure", runner="GitHub Actions 9")
    forge = Forge(replace(RUN, done=True, jobs=(LAUNCHED, told)))
    forge.notes[told.id] = [("", "no machine"), ("cml-runner", "Is there no machine?")]
    assert "was not interrupted" in outcome_of(forge).summary
    forge.notes[told.id] = [("cml-runner", "no machine of this attempt")]
    assert outcome_of(forge).restarted == LAUNCH_JOB


def test_a_schedule_looks_at_all_runs_and_one_failure_stops_none() -> None:
    forge = Forge()
    assert outcome_of(Forge(replace(RUN, done=True)), ALL).summary == "No run waits for a runner.\n"
    forge.runs = {5: replace(RUN, id=5, jobs=(LAUNCHED, RUNS)), **forge.runs}
    outcome = outcome_of(forge, ALL)
    assert (outcome.restarted, forge.cancelled) == (LAUNCH_JOB, [7])
    assert "Run 5" not in outcome.summary, "in which nothing waits"

    class Failing(Forge):
        def fork(self, run_id: int) -> str | None:
            if run_id == 5:
                raise ForgeError("no run 5")
            return None

    forge = Failing()
    forge.runs = {5: replace(RUN, id=5), **forge.runs}
    with pytest.raises(ForgeError, match="no run 5"):
        outcome_of(forge, ALL)
    assert [run for _, run, _ in forge.reruns] == [7]


# --- what the pages show


def test_on_a_schedule_the_example_looks_at_all_runs() -> None:
    workflow = yaml.safe_load((ROOT / "examples/restart.yml").read_text("utf-8"))
    assert {"workflow_run", "schedule"} == set(workflow[True])  # YAML 1.1 reads `on` as true
    job = workflow["jobs"]["restart"]
    assert job["if"].startswith("github.event_name == 'schedule'")
    environ = {
        "INPUT_COMMAND": job["steps"][0]["with"]["command"],
        "INPUT_TOKEN": "t",
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_NAME": "schedule",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "octo/train",
    }
    request, _ = inputs.parse_restart(inputs.Raw(flags={}, environ=environ), lambda _: None)
    assert request.run_id == ALL


def test_a_job_as_the_page_has_it_says_that_there_is_no_machine() -> None:
    page = (ROOT / "docs/restart.md").read_text("utf-8")
    (title, text) = re.findall(r"echo \"::error title=([^:]+)::([^\"]+)\"; exit 1", page)[0]
    assert title == MARK_TITLE
    assert text.startswith(NO_MACHINE)
