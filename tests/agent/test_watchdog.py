"""What only tells, or only remembers, neither ends a machine that works nor lets one live for
ever: each file and each output that the watchdog and the agent's entry point use fails."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runner_action
from runner_action.agent import watchdog
from runner_action.agent.lifecycle import GONE, Phase, State
from runner_action.agent.spec import AgentSpec
from runner_action.agent.watchdog import Beat, first_look, watch, write_beat
from tests.agent.test_spec import SPEC

POLICY = dataclasses.replace(SPEC, idle_timeout=300, first_job_timeout=300, max_lifetime=432000)
TELLS = """if True:
    import sys, pathlib
    from runner_action.agent.__main__ import write_line
    for word in (b"one\\n", b"two\\n"):
        write_line(word, pathlib.Path(sys.argv[1]))
"""


def told(console: Path, shell: str, code: str = TELLS) -> subprocess.CompletedProcess[str]:
    """By a process whose standard output `shell` has broken."""
    command = 'python=$1 code=$2 console=$3; tells() { "$python" -c "$code" "$console"; }; ' + shell
    return subprocess.run(
        ["bash", "-c", command, "-", sys.executable, code, str(console)],
        cwd=str(Path(runner_action.__file__).parents[1]),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "shell",
    [
        "tells > >(exit); wait $!; tells > >(exit)",
        "tells >/dev/full",
        "tells >&-",
    ],
    ids=["nobody reads it", "full", "closed"],
)
@pytest.mark.parametrize("console", ["console", "nowhere/console"])
def test_words_that_nobody_hears_end_nothing(shell: str, console: str, tmp_path: Path) -> None:
    (tmp_path / "console").touch()
    done = told(tmp_path / console, shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if console == "console":
        assert (tmp_path / console).read_text() != "", "the console gets them instead"


@pytest.mark.parametrize("shell", ["tells >/dev/full", "tells >&-"], ids=["full", "closed"])
def test_nor_do_those_of_the_first_stage(shell: str, tmp_path: Path) -> None:
    code = "from runner_action.agent import stage; stage.say('agent-fetch')"
    done = told(tmp_path / "console", shell, code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_in_the_agent_prints() -> None:
    """`print` fails where nobody reads, and again at Python's end."""
    modules = Path(watchdog.__file__).parent.glob("*.py")
    nodes = [node for file in modules for node in ast.walk(ast.parse(file.read_text()))]
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    assert names
    assert "print" not in names


def test_words_go_to_standard_output_alone_while_it_works(tmp_path: Path) -> None:
    (tmp_path / "console").touch()
    done = told(tmp_path / "console", "tells")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert (tmp_path / "console").read_text() == ""


def test_a_first_check_that_cannot_be_remembered_counts_from_the_boot(tmp_path: Path) -> None:
    assert [first_look(tmp_path, 50.0), first_look(tmp_path, 80.0)] == [50.0, 50.0]
    assert first_look(tmp_path / "nowhere", 50.0) == 0.0
    (tmp_path / "first-look").write_text("")
    assert first_look(tmp_path, 50.0) == 0.0


def checked(home: Path, now: float) -> tuple[int, list[str], int]:
    """The exit code, the stages that were told, and how often the runner was deregistered."""
    stages: list[str] = []
    left: list[str] = []

    def leave() -> str:
        left.append("left")
        return GONE

    code = watch(home, POLICY, lambda: leave, lambda stage, **_: stages.append(stage), now)
    return code, stages, len(left)


@pytest.mark.parametrize("content", ["", "{", "cnothing.here", None])
def test_a_heartbeat_that_cannot_be_read_is_no_verdict(content: str | None, tmp_path: Path) -> None:
    """It says neither that the agent lives nor that it is silent; several in a row end it."""
    (tmp_path / "first-look").write_text("1")
    if content is None:
        (tmp_path / "heartbeat").mkdir()
    else:
        (tmp_path / "heartbeat").write_text(content)
    assert checked(tmp_path, 10000) == (1, [], 0)


@pytest.mark.parametrize("boot", ["", watchdog.boot_id()])
def test_an_agent_that_beats_is_content(boot: str, tmp_path: Path) -> None:
    """Also if the boot's id could not be read for a moment."""
    write_beat(tmp_path, dataclasses.replace(Beat(State(Phase.BUSY, 1, 1), 5), boot=boot))
    assert checked(tmp_path, 10) == (0, [], 0)


def test_a_verdict_stands_and_deregisters_once(tmp_path: Path) -> None:
    """Again if a file does not say whether that was done."""
    write_beat(tmp_path, Beat(State(Phase.BUSY, 1, 1), 5))
    (tmp_path / "gone").mkdir()
    assert checked(tmp_path, 500) == (1, ["watchdog", "deregistered"], 1)
    (tmp_path / "gone").rmdir()
    assert checked(tmp_path, 500) == (1, ["watchdog", "deregistered"], 1)
    assert checked(tmp_path, 500) == (1, ["watchdog"], 0)


def test_a_machine_that_has_rebooted_ends(tmp_path: Path) -> None:
    write_beat(tmp_path, dataclasses.replace(Beat(State(Phase.BUSY, 1, 1), 5), boot="another"))
    assert checked(tmp_path, 10) == (1, ["watchdog", "deregistered"], 1)


def test_a_heartbeat_says_by_its_age_whether_it_needs_a_closer_look(tmp_path: Path) -> None:
    """For a minute nothing but silence may end the machine (bootstrap/machine)."""

    def age(beat: Beat, policy: AgentSpec | None = POLICY) -> float:
        write_beat(tmp_path, beat, policy)
        return time.time() - (tmp_path / "heartbeat").stat().st_mtime

    assert age(Beat(State(Phase.BUSY, 1, 1), 5)) < 5
    assert age(Beat(State(Phase.BUSY, 1, 1), 5), None) > 60
    assert age(Beat(State(Phase.STARTING, 1, 1), 590)) < 5
    assert age(Beat(State(Phase.STARTING, 1, 1), 630)) > 60, "never online, in half a minute"
    assert age(Beat(State(Phase.BUSY, 1, 1), 432030)) > 60, "its lifetime, in half a minute"
