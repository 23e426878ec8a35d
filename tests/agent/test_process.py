"""The child process: whole lines whatever the chunks, exit told although its output is held,
nothing survives a stop."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.guard import COMMAND, descendants
from runner_action.agent.process import (
    LINE_LIMIT,
    Child,
    Tail,
    child_environment,
    job_user,
    run_to_end,
    session,
)


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"2026-11-23: Listening f", b"or Jobs\n"], ["2026-11-23: Listening for Jobs"]),
        ([b"one\ntwo\nthr", b"ee\n"], ["one", "two", "three"]),
        (["√ Connect".encode()[:2], "√ Connect".encode()[2:], b"ed\r\n"], ["√ Connected"]),
        ([b"\xff\xfe broken\n"], ["�� broken"]),
        ([b"still being writ"], []),
        ([b""], []),
    ],
    ids=["split", "merged", "inside a letter", "not utf-8", "last line open", "nothing"],
)
def test_lines_are_whole_whatever_the_chunks(
    chunks: list[bytes], lines: list[str], tmp_path: Path
) -> None:
    tail, seen = Tail(tmp_path / "log"), []
    assert tail.lines() == []
    for chunk in chunks:
        with (tmp_path / "log").open("ab") as file:
            file.write(chunk)
        seen += tail.lines()
    assert seen == lines


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 3 * LINE_LIMIT)
    tail = Tail(tmp_path / "log")
    assert [len(line) for _ in range(4) for line in tail.lines()] == [LINE_LIMIT] * 3


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link", "nothing"])
def test_what_is_put_in_the_place_of_the_file_is_not_read(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n")
    tail = Tail(log)
    assert tail.lines() == ["one"]
    with log.open("a") as still_written:
        log.unlink()
        if kind == "file":
            log.write_text("one\nforged\n")
        elif kind == "folder":
            log.mkdir()
        elif kind == "fifo":
            os.mkfifo(log)
        elif kind == "link":
            log.symlink_to("/dev/zero")
        still_written.write("two\n")
    assert tail.lines() == ["two"]


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert Tail(tmp_path / "log").lines() == []


def never() -> bool:
    return False


def start(argv: list[str], folder: Path, **more: Any) -> tuple[Child, queue.Queue[int]]:
    codes: queue.Queue[int] = queue.Queue()
    return Child.start(argv, folder, dict(os.environ), folder / "log", codes.put, **more), codes


def gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ") Z" in Path(f"/proc/{pid}/stat").read_text():
                return True
        except OSError:  # no longer there, or going while it is read
            return True
        time.sleep(0.02)
    return False


def nobody_left(leader: int) -> bool:
    """A process to which SIGKILL was sent is there until the kernel has taken it away."""
    return all(gone(pid) for pid in session(leader))


def first_line(file: Path) -> str:
    while not file.exists() or "\n" not in file.read_text():
        time.sleep(0.02)
    return file.read_text().split("\n")[0]


def test_exit_is_told_although_a_process_left_behind_holds_the_output(tmp_path: Path) -> None:
    child, codes = start(["sh", "-c", "sleep 60 & exit 3"], tmp_path)
    assert codes.get(timeout=10) == 3
    child.stop(1, never)
    assert nobody_left(child.pid)


# In a group of its own (set -m), as run.sh of actions/runner does with its listener.
STUBBORN = "trap '' INT TERM; set -m; (trap '' INT TERM; sleep 300) & echo $!; wait"


@pytest.mark.parametrize(
    ("seconds", "hurry"), [(0.5, False), (60.0, True)], ids=["in time", "in a hurry"]
)
def test_stop_is_bounded_and_leaves_nothing(seconds: float, hurry: bool, tmp_path: Path) -> None:
    child, codes = start(["bash", "-c", STUBBORN], tmp_path)
    grandchild = int(first_line(tmp_path / "log"))
    began = time.monotonic()
    child.stop(seconds, lambda: hurry)
    assert time.monotonic() - began < 3
    assert codes.get(timeout=5) == -9
    assert gone(grandchild)


def test_a_child_is_adopted_by_an_agent_started_anew(tmp_path: Path) -> None:
    before, _ = start(["bash", "-c", STUBBORN], tmp_path)
    first_line(tmp_path / "log")
    codes: queue.Queue[int] = queue.Queue()
    adopted = Child.adopt(before.pid, codes.put)
    time.sleep(0.6)
    assert codes.empty()
    adopted.stop(0.2, never)
    assert codes.get(timeout=5) == -1
    assert nobody_left(before.pid)


def test_a_guarded_command_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    """SIGKILL to the agent of a local machine: no handler runs, and still nothing stays."""
    script = f"""
import os, sys, time
from pathlib import Path
from runner_action.agent.process import Child
from runner_action.agent.guard import COMMAND
argv = [*COMMAND, "bash", "-c", {STUBBORN!r}]
Child.start(argv, Path("."), dict(os.environ), Path("log"), lambda code: None, stdin=-1)
time.sleep(300)
"""
    agent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    grandchild = int(first_line(tmp_path / "log"))
    agent.kill()
    agent.wait()
    assert gone(grandchild, 20)


def test_a_guard_passes_on_how_the_command_ended(tmp_path: Path) -> None:
    _, codes = start([*COMMAND, "sh", "-c", "exit 7"], tmp_path, stdin=subprocess.PIPE)
    assert codes.get(timeout=10) == 7


def test_descendants_are_found_without_proc(tmp_path: Path) -> None:
    child, _ = start(["bash", "-c", STUBBORN], tmp_path)
    grandchild = int(first_line(tmp_path / "log"))
    assert {child.pid, grandchild} <= set(descendants(child.pid))
    child.stop(0.1, never)


def test_a_command_that_fails_tells_its_code_and_last_lines(tmp_path: Path) -> None:
    outcome = run_to_end(
        ["sh", "-c", "seq 100; echo why >&2; exit 7"], tmp_path, dict(os.environ), 10, keep=2
    )
    assert outcome == "exit code 7: 100 / why"


def test_what_a_command_says_is_heard_while_it_runs(tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    command = (
        f"echo first; while ! test -e {tmp_path}/go; do sleep 0.1; done; seq 30000; head -c"
        f" {2 * LINE_LIMIT} /dev/zero | tr '\\0' x; echo; echo last"
    )

    def echo(line: str) -> None:
        heard.append((line, (tmp_path / "go").exists()))
        (tmp_path / "go").touch()

    assert run_to_end(["sh", "-c", command], tmp_path, dict(os.environ), 20, echo=echo) is None
    assert heard[0] == ("first", False)
    assert [line for line, _ in heard[1:30001]] == [str(number) for number in range(1, 30001)]
    assert heard[-1][0] == "last"
    assert "".join(line for line, _ in heard[30001:-1]) == "x" * 2 * LINE_LIMIT


def test_a_command_without_end_is_ended(tmp_path: Path) -> None:
    outcome = run_to_end(["sh", "-c", "echo waiting; sleep 60"], tmp_path, dict(os.environ), 0.5)
    assert outcome is not None
    assert outcome.endswith("waiting")


def test_a_child_sees_no_secret_of_ours() -> None:
    user = job_user("nobody", {"RUNNER_ALLOW_RUNASROOT": "1"})
    given = {
        "PATH": "/bin",
        "REPO_TOKEN": "canary",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "https_proxy": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    seen = child_environment(user, given)
    assert "canary" not in repr(seen)
    assert seen["https_proxy"] == seen["HTTPS_PROXY"] == "http://proxy:3128"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_jobs_do_not_become_root_because_their_user_is_missing() -> None:
    with pytest.raises(KeyError):
        job_user("no-such-user", {})
    assert job_user("nobody", {}).pw_name == "nobody"
