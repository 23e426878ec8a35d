"""`cml-runner restart`: was this run ended because a machine was lost? Judged by what the
run shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from runner_action.agent.reasons import Reason
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
from runner_action.ci.base import MARK_TITLE, online_mark, runners_marked
from runner_action.commands.interrupted import find
from runner_action.commands.rerun import Outcome
from runner_action.commands.restart import restart
from runner_action.errors import AuthError, ForgeError
from runner_action.model import ForgeName, Repository, Secret
from runner_action.request import RestartRequest
from tests.fakes import FakeClock, FakeForge

LOST = (
    "The self-hosted runner: cml-1 lost communication with the server. Verify the machine is"
    " running and has a healthy network connection."
)
SHUT = (
    "The runner has received a shutdown signal. This can happen when the runner service is stopped,"
    " or a manually started runner is canceled."
)
OURS = "interrupted: the machine is being taken away (runner cml-1, attempt 1)"
LAUNCHED = Job(1, "launch", "completed", "success", "GitHub Actions 7", ("ubuntu-latest",))
LOST_JOB = Job(2, "train", "completed", "failure", "cml-1", ("gpu",))
MARK = (MARK_TITLE, online_mark(["cml-1", "cml-2"]))
RUN = Run(7, 1, True, 3600.0, (LAUNCHED, LOST_JOB))


def story(
    run: Run = RUN,
    noted: Sequence[tuple[str, str]] = ((MARK_TITLE, OURS),),
    limit: int = 5,
    *,
    dry_run: bool = False,
    marked: bool = True,
) -> tuple[FakeForge, Outcome]:
    forge = FakeForge()
    forge.runs[run.id] = run
    forge.notes = {1: [MARK] if marked else [], 2: list(noted)}
    return forge, outcome_of(forge, limit, dry_run=dry_run)


def outcome_of(
    forge: FakeForge, limit: int = 5, *, dry_run: bool = False, allow_forks: bool = False
) -> Outcome:
    where: dict[str, Any] = {
        "forge": ForgeName.GITHUB,
        "repository": Repository(url="https://github.com/octo/train"),
        "token": Secret("t"),
        "log": "info",
    }
    return restart(
        RestartRequest(
            **where, run_id=RUN.id, restart_limit=limit, dry_run=dry_run, allow_forks=allow_forks
        ),
        forge,
        FakeClock(),
    )


def test_the_mark_goes_there_and_back() -> None:
    assert runners_marked(MARK[1]) == ["cml-1", "cml-2"]
    assert runners_marked("something else: cml-1") == []
    assert runners_marked("He said: Runner online: cml-1") == []
    assert runners_marked(online_mark([])) == []


@pytest.mark.parametrize("sign", [(MARK_TITLE, OURS), ("", LOST), ("", SHUT)])
def test_each_sign_of_an_interruption(sign: tuple[str, str]) -> None:
    forge, outcome = story(noted=[("", "Process completed with exit code 1."), sign])
    assert outcome.restarted == LAUNCH_JOB
    assert forge.reruns == [(LAUNCH_JOB, 7, 1)]
    assert f"- `train` on `cml-1`: {sign[1]}" in outcome.summary
    assert "attempt 2" in outcome.summary


@pytest.mark.parametrize(
    "noted",
    [
        [],
        [("", "Process completed with exit code 1.")],
        [("", "The job was canceled because another one failed.")],
        [("somebody", OURS)],
        [(MARK_TITLE, "The old spelling `tag` is gone.")],
    ],
    ids=["nothing", "it failed", "fail-fast", "a title of another tool", "a warning of cml-runner"],
)
def test_what_failed_by_itself_is_left_alone(noted: list[tuple[str, str]]) -> None:
    forge, outcome = story(noted=noted)
    assert (outcome.restarted, forge.reruns) == ("", [])
    assert "was not interrupted" in outcome.summary


def test_jobs_of_two_launches_need_the_whole_run() -> None:
    """GitHub re-runs one job with those that need it, or all."""
    launches = LAUNCHED, replace(LAUNCHED, id=3, name="launch-b")
    lost = LOST_JOB, replace(LOST_JOB, id=4, name="train-b", runner="cml-9")
    forge = FakeForge()
    forge.runs[RUN.id] = replace(RUN, jobs=(*launches, *lost))
    other = (MARK_TITLE, online_mark(["cml-9"]))
    forge.notes = {1: [MARK], 3: [other], 2: [("", LOST)], 4: [("", LOST)]}
    assert outcome_of(forge).restarted == WHOLE_RUN
    assert forge.reruns == [(WHOLE_RUN, 7, None)]


def test_a_request_without_a_response_may_have_been_accepted() -> None:
    class Silent(FakeForge):
        def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
            super().rerun(what, run_id, job_id)
            self.runs[run_id] = replace(self.runs[run_id], attempt=2, done=False)
            return "HTTP 403: The workflow run is already running"

    forge = Silent()
    forge.runs[RUN.id] = RUN
    forge.notes = {1: [MARK], 2: [(MARK_TITLE, OURS)]}
    outcome = outcome_of(forge)
    assert outcome.restarted == LAUNCH_JOB
    assert len(forge.reruns) == 1


def test_a_forks_run_is_not_restarted_by_what_it_says() -> None:
    """Its code writes annotations, names jobs and chooses labels."""
    forge, _ = story()
    forge.reruns.clear()
    forge.forks[RUN.id] = "mallory/`train`, a fork of octo/train"
    refused = outcome_of(forge)
    assert (refused.restarted, forge.reruns) == ("", [])
    assert "code of `mallory/'train', a fork of octo/train`" in refused.summary
    assert outcome_of(forge, allow_forks=True).restarted == LAUNCH_JOB


def test_a_runner_that_still_lives_was_not_taken() -> None:
    forge = FakeForge()
    forge.runs[7], forge.notes = RUN, {1: [MARK], 2: [("", SHUT)]}
    forge.add("cml-1")
    assert outcome_of(forge).restarted == ""
    forge.listed["cml-1"] = replace(forge.listed["cml-1"], online=False)
    assert outcome_of(forge).restarted == LAUNCH_JOB


def test_a_token_that_may_not_list_runners_is_enough() -> None:
    forge = FakeForge()
    forge.runs[7], forge.notes = RUN, {1: [MARK], 2: [("", LOST)]}
    forge.trouble["runners"] = AuthError("no", "hint")
    assert outcome_of(forge).restarted == LAUNCH_JOB


def test_machines_of_others_are_none_of_our_business() -> None:
    elsewhere = replace(RUN, jobs=(LAUNCHED, replace(LOST_JOB, runner="rack-17")))
    assert story(elsewhere, [("", LOST)])[1].restarted == ""
    hosted = replace(RUN, jobs=(LAUNCHED, replace(LOST_JOB, runner="GitHub Actions 9")))
    assert story(hosted, [("", SHUT)])[1].restarted == ""


def test_ours_by_name_though_no_job_of_the_run_launched_it() -> None:
    """Another workflow keeps the machines: the failed jobs are all there is to re-run."""
    ours, namesake = (
        replace(RUN, jobs=(LAUNCHED, replace(LOST_JOB, runner=name)))
        for name in ("cml-0123456789-3", "cml-builder-3")
    )
    assert story(namesake, [("", LOST)], marked=False)[1].restarted == ""
    forge, outcome = story(ours, [("", LOST)], marked=False)
    assert outcome.restarted == FAILED_JOBS
    assert forge.reruns == [(FAILED_JOBS, 7, None)]


def test_what_is_refused_is_followed_by_more() -> None:
    forge = FakeForge()
    forge.runs[7] = RUN
    forge.notes = {1: [MARK], 2: [("", LOST)]}
    forge.refuses = (LAUNCH_JOB, FAILED_JOBS)
    assert outcome_of(forge).restarted == WHOLE_RUN
    twice = [LAUNCH_JOB, LAUNCH_JOB, FAILED_JOBS]
    assert [what for what, _, _ in forge.reruns] == [*twice, LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN]
    forge.refuses = (LAUNCH_JOB, FAILED_JOBS, WHOLE_RUN)
    with pytest.raises(
        ForgeError,
        match="re-run run 7: launch job and its dependants: refused; failed jobs: refused",
    ) as caught:
        outcome_of(forge)
    assert "actions: write" in caught.value.hint


@pytest.mark.parametrize(
    ("run", "limit", "why"),
    [
        (replace(RUN, attempt=6), 5, "restart-limit 5 is reached"),
        (RUN, 0, "restart-limit 0"),
        (replace(RUN, attempt=RERUNS + 1), 99, "at most 50 times"),
        (replace(RUN, age=DAYS * 86400 + 1), 5, "only within 30 days"),
    ],
)
def test_the_limits_are_kept_and_told(run: Run, limit: int, why: str) -> None:
    forge, outcome = story(run, limit=limit)
    assert (outcome.restarted, forge.reruns) == ("", [])
    assert why in outcome.summary
    assert "`train` on `cml-1`" in outcome.summary


SIGNED = [
    *(
        (MARK_TITLE, f"interrupted: {reason.text} (runner cml-1, attempt 2)")
        for reason in Reason
        if reason.restarts
    ),
    ("", LOST),
    ("", SHUT),
]


@pytest.mark.parametrize("sign", SIGNED, ids=[text[:50] for _, text in SIGNED])
@pytest.mark.parametrize("attempt", [1, 2])
def test_what_a_job_may_have_brought_about_is_restarted_once(
    sign: tuple[str, str], attempt: int
) -> None:
    """As the agent would: the cloud's word and the limits of time as often as the user allows,
    all else after a first attempt only."""
    often = any(
        reason.text in sign[1] for reason in (Reason.TAKEN, Reason.JOB_LIMIT, Reason.LIFETIME)
    )
    _, outcome = story(replace(RUN, attempt=attempt), [sign])
    assert bool(outcome.restarted) is (often or attempt == 1)
    assert outcome.restarted or "this reason allows only one restart" in outcome.summary


def test_the_most_deserving_of_several_jobs_decides() -> None:
    forge = FakeForge()
    second = replace(LOST_JOB, id=3, name="evaluate", runner="cml-2")
    forge.runs[7] = replace(RUN, attempt=2, jobs=(*RUN.jobs, second))
    forge.notes = {1: [MARK], 2: [("", LOST)], 3: [(MARK_TITLE, OURS)]}
    assert outcome_of(forge).restarted == LAUNCH_JOB


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_run_that_another_one_has_superseded(dry_run: bool) -> None:
    """A re-run enters its concurrency group as a new run does."""
    forge = FakeForge()
    forge.runs[7], forge.notes = RUN, {1: [MARK], 2: [("", LOST)]}
    forge.in_groups = [7, 8]
    outcome = outcome_of(forge, dry_run=dry_run)
    assert (outcome.restarted, forge.reruns) == ("", [])
    assert "### Not restarted: " in outcome.summary
    assert "run 8 is in the same concurrency group" in outcome.summary
    assert "`train` on `cml-1`" in outcome.summary
    forge.in_groups = [7]
    assert bool(outcome_of(forge).restarted)


def test_a_server_that_does_not_know_concurrency_groups_restarts_all_the_same() -> None:
    """As an Enterprise Server does not."""
    forge, _ = story()
    forge.reruns.clear()
    forge.trouble["rivals"] = ForgeError("GitHub answered 404", "hint")
    assert outcome_of(forge).restarted == LAUNCH_JOB


def test_who_is_in_a_group_is_read_only_before_a_re_run() -> None:
    assert story()[0].calls.count("rivals") == 1
    assert "rivals" not in story(limit=0)[0].calls


def test_a_dry_run_only_tells() -> None:
    forge, outcome = story(dry_run=True)
    assert (outcome.restarted, forge.reruns) == ("", [])
    assert f"Would re-run: {LAUNCH_JOB}" in outcome.summary


def test_a_run_that_goes_on_or_went_well() -> None:
    assert "still running" in story(replace(RUN, done=False))[1].summary
    forge, outcome = story(replace(RUN, jobs=(LAUNCHED, replace(LOST_JOB, conclusion="success"))))
    assert outcome.restarted == ""
    assert forge.calls == ["run"], "a run that went well costs one request"


def test_several_lost_jobs_have_one_restart() -> None:
    second = replace(LOST_JOB, id=3, name="evaluate", runner="cml-2")
    finding = find(
        replace(RUN, jobs=(*RUN.jobs, second)),
        {1: [MARK], 2: [("", LOST)], 3: [("", SHUT)]},
        frozenset(),
    )
    assert [job.name for job, _ in finding.interrupted] == ["train", "evaluate"]
    assert finding.launch == Launch(1, "launch")
