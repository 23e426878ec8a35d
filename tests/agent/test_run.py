"""The agent's effects that need no world: the hooks' file, the heartbeat, what is cleaned up after it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner_action.agent import events, lifecycle
from runner_action.agent.__main__ import main
from runner_action.agent.github import Forge as GitHub
from runner_action.agent.lifecycle import GONE, REFUSED, Phase
from runner_action.agent.run import Agent
from runner_action.agent.watchdog import Beat, clean_up, comes_back, first_look, read_beat, write_beat
from tests.agent.test_spec import SPEC

ROOT_OK = {"RUNNER_ALLOW_RUNASROOT": "1"}


def agent(home: Path, told: list[str] | None = None) -> Agent:
    return Agent(SPEC, home, ROOT_OK, lambda stage, **facts: (told if told is not None else []).append(f"{stage} {facts}"), now=lambda: 100.0)


def test_jobs_are_read_in_whole_lines_however_they_are_written(tmp_path: Path) -> None:
    one, jobs = agent(tmp_path), tmp_path / "jobs"
    jobs.write_text("started\tocto/train\t7\t1\ttrain\ncomple")
    assert one._next()[:-1] == [events.JobStarted(100.0, "train of run 7, attempt 1", ref=("octo/train", 7, 1))]
    assert one._next()[:-1] == []
    with jobs.open("a") as file:
        file.write("ted\tocto/train\t7\t1\ttrain\nodd line\nstarted\tocto/train\t8\t2\teval\n")
    assert [type(event) for event in one._next()[:-1]] == [events.JobFinished, events.JobStarted]


@pytest.mark.parametrize(
    ("lines", "told", "event"),
    [
        ("2026-11-23 08:00:00Z: Listening for Jobs", 0, events.Online(100.0)),
        ("2026-11-23 08:00:00Z: Job train completed with result: Succeeded", 0, events.Settled(100.0)),
        ("Runner listener exit with terminated error, stop the service, no retry needed.", 0, events.RunnerExited(100.0, 1)),
        ("Runner listener exit with Session Conflict error, stop the service, no retry needed.", 0, events.RunnerExited(100.0, 5)),
        ("Exiting with unknown error code: 6", 0, events.RunnerExited(100.0, 6)),
        ("Runner listener exit with deprecated version exit code: 7.", 7, events.RunnerExited(100.0, 7)),
        ("Runner listener exit with 0 return code, stop the service, no retry needed.", 0, events.RunnerExited(100.0, 0)),
        ("Exiting runner...", 0, events.RunnerExited(100.0, 0)),
        ("Error: Exit code 1 of a job: 9", 0, events.RunnerExited(100.0, 0)),
        (
            "The runner no longer exists on the server.\nRunner listener exit with 0 return code, stop the service, no retry needed.",
            0,
            events.RunnerExited(100.0, 0, True),
        ),
    ],
)
def test_what_the_runner_says_and_how_it_ends(lines: str, told: int, event: events.Event, tmp_path: Path) -> None:
    """Lines of actions/runner 2.336 and its run-helper.sh, which ends with 0 whatever the listener said."""
    one = agent(tmp_path)
    (tmp_path / "runner.log").write_text(lines + "\n")
    if isinstance(event, events.RunnerExited):
        one._exited(told)
    assert one._next()[:-1] == [event]


def test_the_heartbeat_comes_back_as_it_was_written(tmp_path: Path) -> None:
    beat = Beat(lifecycle.State(Phase.BUSY, 12.5, 3.0, job="train", worked=True), 99.0, ("octo/train", 7, 1), 40, 1234)
    write_beat(tmp_path, beat)
    assert read_beat(tmp_path) == beat


@pytest.mark.parametrize("text", ["", "{", "cnothing.here"])
def test_a_broken_heartbeat_is_none_and_the_first_look_is_remembered(text: str, tmp_path: Path) -> None:
    (tmp_path / "heartbeat").write_text(text)
    assert read_beat(tmp_path) is None
    assert first_look(tmp_path, 50.0) == 50.0
    assert first_look(tmp_path, 80.0) == 50.0


@pytest.mark.parametrize(
    ("phase", "result", "comes"),
    [
        (Phase.BUSY, "signal", [True, False]),
        (Phase.IDLE, "signal", [False, False]),
        (Phase.BUSY, "success", [False, False]),
        (Phase.LEAVING, "signal", [False, False]),
    ],
)
def test_an_agent_killed_while_a_job_runs_comes_back_once(phase: Phase, result: str, comes: list[bool], tmp_path: Path) -> None:
    write_beat(tmp_path, Beat(lifecycle.State(phase, 1, 1), 5))
    assert [comes_back(tmp_path, result), comes_back(tmp_path, result)] == comes


def test_the_hooks_we_write_are_good_shell_and_tell_whole_lines(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    added = GitHub(SPEC, tmp_path, {}, {}).environment(tmp_path / "hooks", jobs)
    scripts = [added["ACTIONS_RUNNER_HOOK_JOB_STARTED"], added["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"]]
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), *scripts], check=True)
    for script in scripts:
        workspace = tmp_path / "_work" / "train" / "train"
        workspace.mkdir(parents=True, exist_ok=True)
        (workspace / ".hidden").write_text("left by the job")
        env = {"PATH": "/usr/bin:/bin", "GITHUB_REPOSITORY": "octo/train", "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "train"}
        subprocess.run([script], env={**env, "GITHUB_WORKSPACE": str(workspace)}, check=True)
    assert jobs.read_text() == "started\tocto/train\t7\t1\ttrain\ncompleted\tocto/train\t7\t1\ttrain\n"
    assert list(workspace.iterdir()) == [], "nothing stays for the next job"


@pytest.mark.parametrize("workspace", ["", "/", "{home}", "{home}/_work", "{home}/_work/train"])
def test_the_hook_cleans_nothing_but_a_workspace(workspace: str, tmp_path: Path) -> None:
    added = GitHub(SPEC, tmp_path, {}, {}).environment(tmp_path / "hooks", tmp_path / "jobs")
    (tmp_path / "_work" / "train" / "train").mkdir(parents=True)
    env = {"PATH": "/usr/bin:/bin", "GITHUB_WORKSPACE": workspace.format(home=tmp_path)}
    subprocess.run([added["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"]], env=env, check=True)
    assert (tmp_path / "_work" / "train" / "train").exists()


class Member(GitHub):
    """Answers given one after the other, the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def leave(self, timeout: float = 10) -> str:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_clean_up_tries_until_the_runner_is_gone_and_only_once(tmp_path: Path) -> None:
    told: list[str] = []
    member = Member(REFUSED, GONE)
    for _ in range(2):
        clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: told.append(stage))
    assert member.asked == 2
    assert told == ["deregistered"]


def test_clean_up_again_for_a_registration_that_was_on_its_way(tmp_path: Path) -> None:
    member = Member(GONE)
    clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: None)
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / ".runner").write_text("{}")
    os.utime(tmp_path / "gone", (1, 1))
    clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: None)
    assert member.asked == 2


def test_a_missing_job_user_is_told_and_ends_the_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    (tmp_path / "spec.json").write_text(dataclasses.replace(SPEC, job_user="nobody-at-all").to_json())
    assert main(["run"], {}, tmp_path) == 6
    told = capfd.readouterr().out
    assert "no such user" in told
    assert "canary" not in told


def test_secrets_are_starred_out_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    from runner_action.agent.__main__ import say_on_console

    say_on_console(SPEC)("failed", why="config.sh said canary-jit and canary-api")
    assert capfd.readouterr().out.count("***") == 2
