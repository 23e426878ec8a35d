"""The first stage on a machine, with a real Python, a real server and the file as a release
publishes it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import stage
from runner_action.bundle import bundle

Answer = tuple[int, bytes]


class Mirror:
    """Answers with these in turn, the last for ever. An answer of 0 is a connection that breaks
    in its middle."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.requests = list(answers), 0
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests += 1
                status, content = (
                    mirror.answers.pop(0) if len(mirror.answers) > 1 else mirror.answers[0]
                )
                self.send_response(status or 200)
                self.send_header("Content-Length", str(len(content) + (0 if status else 10)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def mirror() -> Iterator[Callable[..., Mirror]]:
    mirrors: list[Mirror] = []

    def start(*answers: Answer) -> Mirror:
        mirrors.append(Mirror(*answers))
        return mirrors[-1]

    yield start
    for server in mirrors:
        server.server.shutdown()
        server.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.at, self.pauses = 0.0, []  # type: float, list[float]

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.pauses.append(seconds)


def machine(folder: Path, url: str, sha256: str = bundle().sha256, **spec: Any) -> Path:
    """A home as cloud-init leaves it, with the first stage."""
    (folder / "agent.py").write_text(Path(stage.__file__).read_text("utf-8"))
    (folder / "stage.json").write_text(json.dumps({"url": url, "sha256": sha256}))
    (folder / "spec.json").write_text(json.dumps({"start_timeout": 30, **spec}))
    return folder


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *words],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def test_it_becomes_the_agent(mirror: Callable[..., Mirror], tmp_path: Path) -> None:
    """`run` fetches it; the other units wait for it, and none asks twice."""
    server = mirror((200, bundle().content))
    home = machine(tmp_path, server.url)
    waiting = subprocess.Popen([sys.executable, "-m", "agent", "look"], cwd=home)
    done = run(
        home, "run"
    )  # its spec is none that an agent could live by: that it says so shows that it is one
    assert "__init__() missing" in done.stderr
    assert '"stage": "agent-fetch"' in done.stdout
    assert {file.name for file in (home / "agent").glob("*.py")} == set(
        json.loads(bundle().content)
    )
    assert (home / "agent").stat().st_mode & 0o077 == 0
    assert waiting.wait(20) == 1
    assert run(home, "run").stdout == ""
    assert server.requests == 1


WRONG = bundle().content.replace(b"import", b"1mport", 1)


@pytest.mark.parametrize(
    "content",
    [WRONG, b"", bundle().content[:-1], bundle().content + b"\n", b"<html>Log in</html>"],
    ids=len,
)
def test_nothing_runs_whose_digest_is_not_that_of_the_user_data(
    content: bytes, mirror: Callable[..., Mirror], tmp_path: Path
) -> None:
    server = mirror((200, content))
    done = run(machine(tmp_path, server.url), "run")
    assert done.returncode == stage.FAILED
    assert (
        f"has checksum {hashlib.sha256(content).hexdigest()}, expected {bundle().sha256}"
        in done.stdout
    )
    assert '"stage": "failed"' in done.stdout
    assert not (tmp_path / "agent").exists()
    assert server.requests == 1, "what is wrong once is not asked for again"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_what_cannot_pass_ends_at_once(
    status: int, mirror: Callable[..., Mirror], tmp_path: Path
) -> None:
    server = mirror((status, b"no"))
    done = run(machine(tmp_path, server.url), "run")
    assert (done.returncode, server.requests) == (stage.FAILED, 1)
    assert f"HTTP {status}" in done.stdout


@pytest.mark.parametrize(
    "passing",
    [(408, b""), (429, b"later"), (500, b""), (503, b"busy"), (0, b"half")],
    ids=lambda answer: answer[0],
)
def test_what_can_pass_is_tried_again(passing: Answer, mirror: Callable[..., Mirror]) -> None:
    clock, server = Clock(), mirror(passing, passing, (200, b"agent"))
    assert stage.fetched(server.url, 600, clock.now, clock.sleep) == b"agent"
    assert clock.pauses == [1, 2]


def test_it_is_tried_until_the_start_timeout() -> None:
    clock = Clock()
    with pytest.raises(
        stage.NotFetched,
        match=r"could not download the agent from http://127.0.0.1:1/agent: .*refused",
    ):
        stage.fetched("http://127.0.0.1:1/agent", 600, clock.now, clock.sleep)
    assert 570 <= clock.at <= 630
    assert max(clock.pauses) == stage.LONGEST


def test_the_watchdog_ends_a_machine_that_never_gets_its_agent(tmp_path: Path) -> None:
    spec = {"start_timeout": 600}
    assert [stage.late(tmp_path, spec, now) for now in (100.0, 101.0, 759.0, 761.0)] == [
        False,
        False,
        False,
        True,
    ]
    assert stage.late(tmp_path, spec, 5.0), "its clock began anew: the machine was started again"


def test_without_an_agent_there_is_nothing_to_clean_up(tmp_path: Path) -> None:
    assert run(machine(tmp_path, "http://127.0.0.1:1/"), "cleanup").returncode == 1
    assert run(tmp_path, "watchdog").returncode == 0


def test_its_words_are_those_of_the_agent() -> None:
    from runner_action.agent import lifecycle, reasons

    assert reasons.Reason.START_FAILED.exit_code == stage.FAILED
    assert stage.MARGIN == lifecycle.MARGIN
    assert issubclass(http.client.IncompleteRead, http.client.HTTPException)
