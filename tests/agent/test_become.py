"""The start of a machine: what fails is tried again, if that may help. And what it must still have
after a job to run another."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import gitlab
from runner_action.agent.become import FINAL, Start
from runner_action.agent.forge import Member
from tests.agent.test_room import tool
from tests.agent.test_spec import SPEC

WORKS, STOPPED = "exit 0", "echo 'Cannot connect to the Docker daemon'; exit 1"
LOST = "echo 'Unable to determine the device handle for GPU 0000:00:1E.0'; exit 15"
GPU = "the NVIDIA GPU does not work, nvidia-smi fails: exit code 15: Unable to determine"


@pytest.mark.parametrize(
    ("gpu", "docker", "nvidia_smi", "daemon", "restarted", "why"),
    [
        (False, False, LOST, STOPPED, STOPPED, ""),
        (True, True, WORKS, WORKS, STOPPED, ""),
        (True, False, LOST, STOPPED, STOPPED, GPU),
        (True, True, LOST, STOPPED, WORKS, GPU),
        (False, True, LOST, STOPPED, WORKS, ""),
        (True, True, WORKS, STOPPED, STOPPED, "exit code 1: Cannot connect to the Docker daemon"),
    ],
)
def test_what_worked_for_the_last_job_must_still_work(
    gpu: bool,
    docker: bool,
    nvidia_smi: str,
    daemon: str,
    restarted: str,
    why: str,
    tmp_path: Path,
) -> None:
    """`daemon`: how `docker info` ends; `restarted`: how it ends when Docker was started."""
    state = tmp_path / "state"
    state.write_text(daemon)
    tool(tmp_path, "docker", f". {state}")
    tool(tmp_path, "systemctl", f'[ "$*" = "start docker" ] && echo "{restarted}" > {state}')
    environ = tool(tmp_path, "nvidia-smi", nvidia_smi)
    user = pwd.getpwuid(os.geteuid())
    start = Start(SPEC, tmp_path, environ, user, {}, lambda stage, **facts: None, tmp_path)
    start.gpu, start.docker = gpu, docker
    problem = start.unfit()
    assert (problem or "").startswith(why)
    assert bool(problem) is bool(why)


CODE = "exit code 1: Http response code: %s from 'POST https://api.github.com/actions/…' (Request"
URLOPEN = "<urlopen error [Errno %s]>"


@pytest.mark.parametrize(
    "why",
    [
        *(f"HTTP Error {status}: as it is" for status in (400, 401, 404, 407, 410, 451)),
        *(CODE % name for name in ("Unauthorized", "NotFound")),
        "[Errno 2] No such file or directory: './config.sh'",
        "[Errno 28] No space left on device",
        "tar: externals/node: Cannot write: No space left on device",
        "exit code 1: No space left on device : '/var/lib/cml-runner/runner/.runner'",
        "checksum is 12, expected 34",
    ],
)
def test_what_cannot_pass(why: str) -> None:
    assert FINAL("something: " + why)


@pytest.mark.parametrize(
    "why",
    [
        *(f"HTTP Error {status}: as it is" for status in (403, 408, 425, 429, 500, 502, 503, 504)),
        *(CODE % name for name in ("Forbidden", "TooManyRequests", "RequestTimeout", "425")),
        *(CODE % name for name in ("InternalServerError", "NotImplemented", "BadGateway")),
        *(CODE % name for name in ("ServiceUnavailable", "GatewayTimeout")),
        *(URLOPEN % number for number in ("-2", "-3", "-5", "101", "104", "110", "111", "113")),
        "[Errno 32] Broken pipe",
        "timed out after 120 s: ",
        "cut off",
        "gzip: stdin: not in gzip format",
        "exit code 1: E: Failed to fetch http://archive.ubuntu.com/… 404  Not Found [IP: 1.2.3.4]",
        "exit code 1: The local machine's clock may be out of sync with the server time",
    ],
)
def test_what_may_pass(why: str) -> None:
    assert not FINAL("something: " + why)


PROGRAM = b"#!/bin/sh\n"
BUSY, MISSING = 503, 404


class Joined(Member):
    """A member whose attempts to register end like this."""

    unpack = gitlab.Forge.unpack

    def __init__(self, *outcomes: str | None) -> None:
        self.outcomes = list(outcomes)
        self.joins = 0

    def join(self) -> str | None:
        self.joins += 1
        return self.outcomes.pop(0)


Server = Callable[..., str]


@pytest.fixture
def server() -> Iterator[Server]:
    """The URL of a runner program, of which the first attempts get these statuses."""
    servers: list[ThreadingHTTPServer] = []

    def start(*statuses: int) -> str:
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(left.pop(0) if left else 200)
                self.end_headers()
                self.wfile.write(PROGRAM)

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/gitlab-runner"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


Said = list[tuple[str, dict[str, Any]]]


def starting(home: Path, url: str, said: Said, equip: str = "", **spec: Any) -> Start:
    if equip:
        (home / "equip.sh").write_text("#!/bin/sh\n" + equip)
        (home / "equip.sh").chmod(0o755)
    digest = hashlib.sha256(PROGRAM).hexdigest()
    whole = dataclasses.replace(SPEC, runner_url=url, runner_sha256=digest, **spec)
    user = pwd.getpwuid(os.geteuid())
    say = lambda stage, **facts: said.append((stage, facts))  # noqa: E731
    return Start(whole, home, {}, user, {}, say, home)


ONCE = "echo x >>tries; [ $(grep -c x tries) -gt 1 ] || { echo E: no archive; exit 1; }"


def test_one_fault_of_each_kind_ends_nothing_and_is_told(server: Server, tmp_path: Path) -> None:
    said: Said = []
    start = starting(tmp_path, server(BUSY), said, ONCE, docker=True)
    runner = Joined("exit code 1: " + CODE % "ServiceUnavailable", None)
    start.run(runner)
    waits = sorted(str(facts["why"]) for stage, facts in said if stage == "waiting")
    assert [why.partition(": ")[0] for why in waits] == [
        "Docker does not work",
        start.spec.runner_url,
        "registration",
    ]
    assert "E: no archive" in waits[0]
    assert "HTTP Error 503" in waits[1]
    assert ("equipped", None) in [(stage, facts.get("why")) for stage, facts in said]
    assert runner.joins == 2
    assert said[-1][0] == "configured"
    assert not start.joining


def test_the_same_reason_is_told_once(server: Server, tmp_path: Path) -> None:
    said: Said = []
    starting(tmp_path, server(BUSY, BUSY), said).run(Joined(None))
    assert [stage for stage, _ in said] == ["waiting", "downloaded", "configured"]


def test_what_cannot_pass_ends_what_waits_beside_it(server: Server, tmp_path: Path) -> None:
    said: Said = []
    start = starting(tmp_path, server(MISSING), said, "exit 1", docker=True)
    began = time.monotonic()
    with pytest.raises(ValueError, match="gitlab-runner: HTTP Error 404"):
        start.run(Joined())
    assert time.monotonic() - began < 5


def test_a_registration_that_is_refused_ends_at_once(server: Server, tmp_path: Path) -> None:
    start = starting(tmp_path, server(), [])
    runner = Joined(CODE % "NotFound")
    with pytest.raises(ValueError, match=r"registration: .*NotFound"):
        start.run(runner)
    assert runner.joins == 1
    assert not start.joining


@pytest.mark.parametrize(("docker", "code"), [(False, 1), (False, 3), (True, 3)])
def test_a_machine_starts_without_packages_that_nobody_promised(
    docker: bool, code: int, server: Server, tmp_path: Path
) -> None:
    said: Said = []
    equip = f"echo E: no git; exit {code}"
    starting(tmp_path, server(), said, equip, docker=docker).run(Joined(None))
    (why,) = [facts["why"] for stage, facts in said if stage == "equipped"]
    assert why == f"exit code {code}: E: no git"


def test_a_machine_that_leaves_does_not_register(server: Server, tmp_path: Path) -> None:
    """It leaves between two attempts, so the next one must not begin."""
    said: Said = []
    start = starting(tmp_path, server(), said)
    runner = Joined("busy", "busy", "busy", None)

    def run() -> None:
        with pytest.raises(ValueError, match="asked to stop"):
            start.run(runner)

    thread = threading.Thread(target=run)
    thread.start()
    while ("waiting", {"why": "registration: busy"}) not in said:
        time.sleep(0.01)
    start.problems.append(ValueError("asked to stop"))
    assert not start.joining
    thread.join(20)
    assert not thread.is_alive()
    assert runner.joins == 1
    assert said[-1][0] != "configured"
