"""The child process: whole lines whatever the chunks, exit told although the pipe is held, nothing survives a stop."""

from __future__ import annotations

import os
import queue
import sys
import time
from pathlib import Path

import pytest

from runner_action.agent.process import LINE_LIMIT, Child, child_environment, job_user, run_to_end

CHUNKS = r"""
import os, time
for chunk in CHUNKS:
    os.write(1, chunk)
    time.sleep(0.01)
"""


def _lines(chunks: list[bytes] | str, folder: Path) -> list[str]:
    lines: list[str] = []
    codes: queue.Queue[int] = queue.Queue()
    Child(
        [sys.executable, "-c", CHUNKS.replace("CHUNKS", chunks if isinstance(chunks, str) else repr(chunks))], folder, dict(os.environ), lines.append, codes.put
    )
    assert codes.get(timeout=20) == 0
    return lines


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"2026-11-23: Listening f", b"or Jobs\n"], ["2026-11-23: Listening for Jobs"]),
        ([b"one\ntwo\nthr", b"ee\n"], ["one", "two", "three"]),
        (["√ Connect".encode()[:2], "√ Connect".encode()[2:], b"ed\r\n"], ["√ Connected"]),
        ([b"\xff\xfe broken\n"], ["�� broken"]),
        ([b"no line end"], ["no line end"]),
        ([b""], []),
    ],
    ids=["split", "merged", "inside a letter", "not utf-8", "last line open", "nothing"],
)
def test_lines_are_whole_whatever_the_chunks(chunks: list[bytes], lines: list[str], tmp_path: Path) -> None:
    assert _lines(chunks, tmp_path) == lines


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    lines = _lines(f"[b'x' * {3 * LINE_LIMIT}]", tmp_path)
    assert max(map(len, lines)) == LINE_LIMIT


def test_exit_is_told_although_a_process_left_behind_holds_the_pipe(tmp_path: Path) -> None:
    codes: queue.Queue[int] = queue.Queue()
    child = Child(["sh", "-c", "sleep 60 & exit 3"], tmp_path, dict(os.environ), lambda _: None, codes.put)
    assert codes.get(timeout=10) == 3
    child.stop(1)


def test_stop_is_bounded_and_leaves_nothing(tmp_path: Path) -> None:
    codes: queue.Queue[int] = queue.Queue()
    # In a group of its own (set -m), as run.sh of actions/runner does with its listener.
    stubborn = "trap '' INT TERM; set -m; (trap '' INT TERM; sleep 300) & echo $!; wait"
    lines: list[str] = []
    child = Child(["bash", "-c", stubborn], tmp_path, dict(os.environ), lines.append, codes.put)
    while not lines:
        time.sleep(0.02)
    began = time.monotonic()
    child.stop(0.5)
    assert time.monotonic() - began < 3
    assert codes.get(timeout=5) == -9
    grandchild = Path(f"/proc/{int(lines[0])}/stat")
    end = time.monotonic() + 5
    while grandchild.exists() and ") Z" not in grandchild.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    assert not grandchild.exists() or ") Z" in grandchild.read_text()


def test_a_command_that_fails_tells_its_code_and_last_lines(tmp_path: Path) -> None:
    told = run_to_end(["sh", "-c", "seq 100; echo why >&2; exit 7"], tmp_path, dict(os.environ), 10, keep=2)
    assert told == "exit code 7: 100 / why"


def test_a_command_without_end_is_ended(tmp_path: Path) -> None:
    told = run_to_end(["sh", "-c", "echo waiting; sleep 60"], tmp_path, dict(os.environ), 0.5)
    assert told is not None
    assert told.endswith("waiting")


def test_a_child_sees_no_secret_of_ours() -> None:
    user = job_user("nobody", {"RUNNER_ALLOW_RUNASROOT": "1"})
    given = {"PATH": "/bin", "REPO_TOKEN": "canary", "AWS_SECRET_ACCESS_KEY": "canary", "https_proxy": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}
    seen = child_environment(user, given)
    assert "canary" not in repr(seen)
    assert seen["https_proxy"] == seen["HTTPS_PROXY"] == "http://proxy:3128"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_jobs_do_not_become_root_because_their_user_is_missing() -> None:
    with pytest.raises(KeyError):
        job_user("no-such-user", {})
    assert job_user("nobody", {}).pw_name == "nobody"
