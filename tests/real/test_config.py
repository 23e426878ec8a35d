"""The configuration that the agent writes, read by the real gitlab-runner.

It ignores keys that it does not know. What it knows shows when it writes its configuration anew:
`verify --delete` does so after it has removed a runner that GitLab does not know."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import gitlab
from tests.agent.test_gitlab import forge

UNKNOWN = {"name": "unknown", "token": "glrt-unknownunknown0000", "executor": "shell"}
Table = dict[str, Any]


class Answers(BaseHTTPRequestHandler):
    """https://docs.gitlab.com/api/runners/#verify-authentication-for-a-registered-runner"""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(403 if body["token"] == UNKNOWN["token"] else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Not between the lines of a test."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def saved(program: Path, server: str, runner: Table, folder: Path) -> Table:
    """The runner as the program writes it after it has read it."""
    config = folder / "config.toml"
    others = gitlab.toml({**UNKNOWN, "url": server}).removeprefix("concurrent = 1\n")
    config.write_text(gitlab.toml({**runner, "url": server}) + others, "utf-8")
    argv = [str(program), "verify", "--delete", "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    everything = tomllib.loads(config.read_text("utf-8"))
    assert everything["concurrent"] == 1
    (left,) = everything["runners"]
    return dict(left)


def lost(ours: Table, theirs: Table) -> Table:
    """What of our configuration the program does not have, apart from what is empty."""
    return {
        key: value
        for key, value in ours.items()
        if value
        and (
            lost(value, theirs.get(key, {}))
            if isinstance(value, dict)
            else value != theirs.get(key)
        )
    }


def gpu(folder: Path) -> Path:
    device = folder / "sys/bus/pci/devices/0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    return folder / "sys"


VARIANTS = list(
    itertools.product(
        ("shell", "docker", "kubernetes"),
        ((), ("/data:/data:ro", "/größe/🚂:/x")),
        (False, True),
        (False, True),
        ({}, {"HTTPS_PROXY": 'http://me:"pw"@größe:1', "NOTE": "🚂 \\ '\n\t"}),
    )
)


@pytest.mark.parametrize(("executor", "volumes", "privileged", "device", "environment"), VARIANTS)
def test_the_program_knows_all_that_the_agent_writes(
    executor: str,
    volumes: tuple[str, ...],
    privileged: bool,
    device: bool,
    environment: dict[str, str],
    gitlab_runner: Path,
    server: str,
    tmp_path: Path,
) -> None:
    member = forge(tmp_path, docker_volumes=volumes, privileged=privileged, environment=environment)
    if executor == "kubernetes":
        member._env["CML_RUNNER_NAMESPACE"] = "runners"
    sysfs = gpu(tmp_path) if device else tmp_path
    ours = member.config(docker=executor == "docker", sysfs=sysfs)
    assert ours["executor"] == executor
    theirs = saved(gitlab_runner, server, ours, tmp_path)
    assert lost({**ours, "url": server}, theirs) == {}


def test_a_key_that_the_program_does_not_know_is_seen(
    gitlab_runner: Path, server: str, tmp_path: Path
) -> None:
    ours = forge(tmp_path).config(docker=True)
    ours["docker"]["shm-size"] = 1
    ours["lables"] = ["a"]
    theirs = saved(gitlab_runner, server, ours, tmp_path)
    assert lost({**ours, "url": server}, theirs) == {"docker": ours["docker"], "lables": ["a"]}
