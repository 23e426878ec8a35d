"""The agent's effects that need no world: the hooks' file, the heartbeat, what is cleaned up after it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner_action.agent import lifecycle
from runner_action.agent.__main__ import main
from runner_action.agent.github import BUSY, GONE, GitHub
from runner_action.agent.lifecycle import Phase
from runner_action.agent.run import Agent
from runner_action.agent.watchdog import clean_up, read_beat, write_beat
from tests.agent.test_spec import SPEC

ROOT_OK = {"RUNNER_ALLOW_RUNASROOT": "1"}


def agent(home: Path, told: list[str] | None = None) -> Agent:
    return Agent(SPEC, home, ROOT_OK, lambda stage, **facts: (told if told is not None else []).append(f"{stage} {facts}"), now=lambda: 100.0)


def test_jobs_are_read_in_whole_lines_however_they_are_written(tmp_path: Path) -> None:
    one = agent(tmp_path)
    one.jobs_file.write_text("started\t7\t1\ttrain\ncomple")
    assert one._jobs() == [lifecycle.JobStarted(100.0, "train of run 7, attempt 1")]
    assert one._jobs() == []
    with one.jobs_file.open("a") as file:
        file.write("ted\t7\t1\ttrain\nodd line\nstarted\t8\t2\teval\n")
    assert [type(event) for event in one._jobs()] == [lifecycle.JobFinished, lifecycle.JobStarted]


def test_the_heartbeat_comes_back_as_it_was_written(tmp_path: Path) -> None:
    state = lifecycle.State(Phase.BUSY, 12.5, 3.0)
    write_beat(tmp_path, state, 99.0)
    assert read_beat(tmp_path, 120.0) == (state, 99.0)


@pytest.mark.parametrize("text", ["", "{", '{"phase": "dancing"}'])
def test_a_broken_heartbeat_is_none_and_the_first_look_is_remembered(text: str, tmp_path: Path) -> None:
    (tmp_path / "heartbeat").write_text(text)
    assert read_beat(tmp_path, 50.0) == (None, 50.0)
    assert read_beat(tmp_path, 80.0) == (None, 50.0)


def test_the_hooks_we_write_are_good_shell_and_tell_whole_lines(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    added = GitHub(SPEC, tmp_path, {}, {}).environment(tmp_path / "hooks", jobs)
    scripts = [added["ACTIONS_RUNNER_HOOK_JOB_STARTED"], added["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"]]
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), *scripts], check=True)
    for script in scripts:
        subprocess.run([script], env={"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "train"}, check=True)
    assert jobs.read_text() == "started\t7\t1\ttrain\ncompleted\t7\t1\ttrain\n"


class Member(GitHub):
    """Answers given one after the other, the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def leave(self, timeout: float = 10) -> str:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_clean_up_tries_until_the_runner_is_gone_and_only_once(tmp_path: Path) -> None:
    told: list[str] = []
    member = Member(BUSY, GONE)
    for _ in range(2):
        clean_up(tmp_path, lambda: member, lambda stage, **facts: told.append(stage))
    assert member.asked == 2
    assert told == ["deregistered"]


def test_clean_up_again_for_a_registration_that_was_on_its_way(tmp_path: Path) -> None:
    member = Member(GONE)
    clean_up(tmp_path, lambda: member, lambda stage, **facts: None)
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / ".runner").write_text("{}")
    os.utime(tmp_path / "gone", (1, 1))
    clean_up(tmp_path, lambda: member, lambda stage, **facts: None)
    assert member.asked == 2


def test_a_missing_job_user_is_told_and_ends_the_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    (tmp_path / "spec.json").write_text(dataclasses.replace(SPEC, job_user="nobody-at-all").to_json())
    assert main(["run"], {}, tmp_path) == 1
    told = capfd.readouterr().out
    assert "no such user" in told
    assert "canary" not in told


def test_secrets_are_starred_out_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    from runner_action.agent.__main__ import say_on_console

    say_on_console(SPEC)("failed", why="config.sh said canary-jit and canary-api")
    assert capfd.readouterr().out.count("***") == 2
