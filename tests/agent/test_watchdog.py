"""What only tells, or only remembers, neither ends a machine that works nor lets one live for
ever: each file and each output that the watchdog and the agent's entry point use fails."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runner_action
from runner_action.agent import __main__ as agent
from runner_action.agent import watchdog
from runner_action.agent.lifecycle import GONE, Phase, Policy, State
from runner_action.agent.watchdog import END, Beat, comes_back, first_look, watch, write_beat

POLICY = Policy(300, 300, 432000, 600, single=False)
TELLS = """if True:
    import sys, pathlib
    from runner_action.agent.__main__ import write_line
    for word in (b"one\\n", b"two\\n"):
        write_line(word, pathlib.Path(sys.argv[1]))
"""


def told(console: Path, shell: str) -> subprocess.CompletedProcess[str]:
    """By a process whose standard output `shell` has broken."""
    command = 'python=$1 code=$2 console=$3; tells() { "$python" -c "$code" "$console"; }; ' + shell
    return subprocess.run(
        ["bash", "-c", command, "-", sys.executable, TELLS, str(console)],
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


def test_words_go_to_standard_output_alone_while_it_works(tmp_path: Path) -> None:
    (tmp_path / "console").touch()
    done = told(tmp_path / "console", "tells")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert (tmp_path / "console").read_text() == ""


def test_a_copy_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / name for name in ("a", "b", "c")]
    for place in places:
        place.mkdir()
        (place / "user-data.txt").write_text("secret")
    remove = os.unlink

    def unlink(path: str) -> None:
        if "/b/" in path:
            raise PermissionError(1, "immutable", path)
        remove(path)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(PermissionError, match="immutable"):
        agent.wipe([str(place) for place in places])
    assert [(place / "user-data.txt").exists() for place in places] == [False, True, False]


def test_a_first_check_that_cannot_be_remembered_counts_from_the_boot(tmp_path: Path) -> None:
    assert [first_look(tmp_path, 50.0), first_look(tmp_path, 80.0)] == [50.0, 50.0]
    assert first_look(tmp_path / "nowhere", 50.0) == 0.0
    (tmp_path / "first-look").write_text("")
    assert first_look(tmp_path, 50.0) == 0.0


def test_an_agent_comes_back_though_that_cannot_be_remembered(tmp_path: Path) -> None:
    write_beat(tmp_path, Beat(State(Phase.BUSY, 1, 1), 5))
    (tmp_path / "restarted").symlink_to(tmp_path / "nowhere/restarted")
    assert comes_back(tmp_path, "signal")


def checked(home: Path, now: float, leaves: str = GONE) -> tuple[int, list[str], int]:
    """The exit code, the stages that were told, and how often the runner was deregistered."""
    stages: list[str] = []
    left: list[str] = []

    def leaver() -> watchdog.Leave:
        if leaves != GONE:
            raise KeyError(leaves)
        return lambda: left.append("left") or GONE  # type: ignore[func-returns-value]

    code = watch(home, POLICY, leaver, lambda stage, **_: stages.append(stage), now)
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


def test_a_verdict_stands_whatever_the_cleanup_meets(tmp_path: Path) -> None:
    write_beat(tmp_path, Beat(State(Phase.BUSY, 1, 1), 5))
    assert checked(tmp_path, 500, "no such user") == (END, ["watchdog", "still-registered"], 0)
    (tmp_path / "gone").mkdir()
    assert checked(tmp_path, 500) == (END, ["watchdog", "deregistered"], 1)
    (tmp_path / "gone").rmdir()
    assert checked(tmp_path, 500) == (END, ["watchdog", "deregistered"], 1)
    assert checked(tmp_path, 500) == (END, ["watchdog"], 0)


def test_a_machine_that_has_rebooted_ends(tmp_path: Path) -> None:
    write_beat(tmp_path, dataclasses.replace(Beat(State(Phase.BUSY, 1, 1), 5), boot="another"))
    assert checked(tmp_path, 10) == (END, ["watchdog", "deregistered"], 1)
