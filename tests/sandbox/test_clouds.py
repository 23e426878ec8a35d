"""Machines of every cloud against the fake metadata services; an agent whose clock is ours; a
machine behind a proxy.

Azure and Google have no provider yet, so their machines are booted here from the user data a
launch would have made.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner_action import bootstrap, inputs
from runner_action.agent.events import JOB_LIMIT
from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB
from runner_action.agent.run import Agent
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.model import Download, LaunchJob, Registration, Secret
from runner_action.request import LaunchRequest
from runner_action.runners import console
from runner_action.sandbox.forges.github.archive import VERSION
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.world import TOKEN, World
from tests.sandbox.conftest import job_of, until

pytestmark = pytest.mark.sandbox


@pytest.fixture
def world() -> Iterator[World]:
    with World(boots=False) as made:
        yield made


def request(world: World, **flags: str) -> LaunchRequest:
    given = {
        "cloud": "aws",
        "repo": world.github.repo_url,
        "driver": "github",
        "token": TOKEN,
        "labels": "train",
        "idle-timeout": "4",
        "restart-token": TOKEN,
        **flags,
    }
    return inputs.parse(
        inputs.Raw(flags={name: [text] for name, text in given.items()}, environ={}), lambda _: None
    )[0]


def spec_of(
    world: World,
    name: str,
    flags: Mapping[str, str] | None = None,
    launch_job: LaunchJob | None = None,
) -> AgentSpec:
    forge = world.github
    url = (
        f"{forge.url}/actions/runner/releases/download/v{VERSION}"
        f"/actions-runner-linux-x64-{VERSION}.tar.gz"
    )
    download = Download(url=url, sha256=forge._archive.sha256, version=VERSION)
    joining = Registration(token=Secret(forge.forge.new_token("register")))
    asked = request(world, **(flags or {}))
    return bootstrap.spec_of(asked, name, joining, download, f"{forge.url}/api/v3", launch_job)


class Booted:
    """A machine of any cloud, from its user data."""

    def __init__(self, world: World, cloud: str, name: str, launch_job: LaunchJob) -> None:
        spec = replace(spec_of(world, name, launch_job=launch_job), cloud=cloud)
        place = world.folder / name
        place.mkdir()
        (place / "user-data").write_bytes(fitting.user_data(spec, request(world), 65536))
        argv = [
            sys.executable,
            "-m",
            "runner_action.sandbox.machine.machine",
            str(place / "root"),
            str(place / "user-data"),
            sys.executable,
            "0.02",
        ]
        (place / "root").mkdir()
        self.log = place / "console"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*argv, world.metadata.url(name)], stdout=out, stderr=subprocess.STDOUT
            )

    def said(self, stage: str) -> Mapping[str, Any] | None:
        return next(
            (line for line in console.entries(self.log.read_text()) if line["stage"] == stage), None
        )


def training(world: World, cloud: str, machines: list[Booted]) -> Run:
    forge = world.github.forge
    run = forge.queue_run()

    def launching(job: Job) -> str:
        machines.append(
            Booted(
                world,
                cloud,
                f"{cloud}-{job.attempt}",
                LaunchJob(run_id=run.id, id=job.id, name=job.name),
            )
        )
        until(lambda: machines[-1].said("online"), "the machine", 30)
        return "success"

    forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    forge.add_job(
        run,
        "train",
        ["train"],
        0.2,
        'test "$GITHUB_RUN_ATTEMPT" != 1 || sleep 60',
        needs=["launch"],
    )
    return forge.begin(run)


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp", "kubernetes"])
def test_a_notice_while_busy_and_the_job_runs_again_on_a_new_machine(
    cloud: str, world: World
) -> None:
    """Thirty seconds is all that Azure and Google give; Kubernetes sends SIGTERM."""
    machines: list[Booted] = []
    run = training(world, cloud, machines)
    until(lambda: machines and machines[0].said("job-started"), "the job", 40)
    began = time.monotonic()
    if cloud == "kubernetes":
        machines[0].process.terminate()
    else:
        world.metadata.notice(f"{cloud}-1", 30)
    until(lambda: run.attempt == 2, "the restart", 20)
    assert time.monotonic() - began < 5 + 2, "under 5 s from the notice, which is seen within 2"
    until(lambda: run.done, "the second attempt", 40)
    second = job_of(run, "train", 2)
    assert second
    assert (second.conclusion, second.runner_name) == ("success", f"{cloud}-2")
    for machine in machines:
        machine.process.wait(30)
    assert world.github.forge.seats() == []
    assert (world.metadata.fate("azure-1").acknowledged == ["event-azure-1"]) is (cloud == "azure")
    if cloud != "kubernetes":
        assert (machines[0].said("restart") or {})["outcome"] == f"{LAUNCH_JOB}, attempt 2"


class Lived:
    """An agent in this process, on a machine that is not ours, with a clock that can be moved."""

    def __init__(self, world: World, folder: Path, spec: AgentSpec) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.ahead = 0.0
        environ = {
            "PATH": os.environ["PATH"],
            "RUNNER_ALLOW_RUNASROOT": "1",
            "CML_RUNNER_METADATA": world.metadata.url("here"),
        }
        say = lambda stage, **facts: self.said.append((stage, facts))  # noqa: E731
        self.agent = Agent(spec, folder, environ, say, now=lambda: time.monotonic() + self.ahead)
        self.codes: list[int] = []
        self.thread = threading.Thread(
            target=lambda: self.codes.append(self.agent.live()), daemon=True
        )
        self.thread.start()

    def wait_for(self, stage: str, seconds: float = 30) -> dict[str, object]:
        until(
            lambda: any(one == stage for one, _ in self.said), f"the agent to say {stage}", seconds
        )
        return next(facts for one, facts in self.said if one == stage)


def test_a_job_is_restarted_before_the_forges_limit(world: World, tmp_path: Path) -> None:
    spec = spec_of(world, "cml-limit", {"max-lifetime": "35d", "restart-limit": "2"})
    lived = Lived(world, tmp_path, spec)
    job = world.github.forge.queue_job(["train"], 60)
    lived.wait_for("job-started")
    run = world.github.forge.run(job.run_id)
    assert run
    lived.ahead = JOB_LIMIT - 400
    time.sleep(1.5)
    assert not lived.agent.state.reason
    lived.ahead = JOB_LIMIT - 200
    assert lived.wait_for("leaving")["why"] == "GitHub's time limit is near"
    assert lived.wait_for("restart")["outcome"] == f"{FAILED_JOBS}, attempt 2", (
        "no launch job is known here"
    )
    assert run.attempt == 2
    lived.wait_for("end", 40)
    lived.thread.join(10)
    assert lived.codes == [0]
    assert world.github.forge.seats() == []


def test_a_job_is_restarted_before_the_machines_own_limit(world: World, tmp_path: Path) -> None:
    lived = Lived(world, tmp_path, spec_of(world, "cml-life", {"max-lifetime": "1h"}))
    job = world.github.forge.queue_job(["train"], 60)
    lived.wait_for("job-started")
    lived.ahead = 3600 - 250
    assert lived.wait_for("leaving")["why"] == "maximum lifetime reached"
    lived.wait_for("end", 40)
    run = world.github.forge.run(job.run_id)
    assert run
    assert run.attempt == 2


def test_a_gpu_that_fails_its_test_never_registers(world: World, tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:00:1e.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    said: list[tuple[str, dict[str, Any]]] = []
    environ = {
        "PATH": "/usr/bin:/bin",
        "RUNNER_ALLOW_RUNASROOT": "1",
        "CML_RUNNER_METADATA": world.metadata.url("here"),
    }
    (tmp_path / "home").mkdir()
    agent = Agent(
        spec_of(world, "cml-gpu"),
        tmp_path / "home",
        environ,
        lambda stage, **facts: said.append((stage, facts)),
        sysfs=tmp_path / "sys",
    )
    assert agent.live() == 6
    why = next(facts["why"] for stage, facts in said if stage == "failed")
    assert "nvidia-smi is missing" in why
    until(
        lambda: any(stage == "downloaded" for stage, _ in said),
        "the thread that downloads meanwhile",
    )
    assert world.github.forge.ever == []


class Proxy(http.server.BaseHTTPRequestHandler):
    """Knows where `forge.test` is, as nobody else does."""

    asked: list[str]
    forge: str

    def _pass_on(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {
            key: value for key, value in self.headers.items() if key not in ("Host", "Connection")
        }
        asked = urllib.request.Request(
            self.path.replace("http://forge.test", self.forge), body, headers, method=self.command
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = opener.open(asked, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_agent_runner_and_jobs_reach_the_forge_through_the_proxy(
    world: World, tmp_path: Path
) -> None:
    proxy: Any = type("Ours", (Proxy,), {"asked": [], "forge": world.github.url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spec = spec_of(
            world,
            "cml-proxied",
            {"https-proxy": f"http://127.0.0.1:{server.server_port}", "idle-timeout": "2"},
        )
        there = {
            "repository_url": "http://forge.test/octo/train",
            "api_url": "http://forge.test/api/v3",
        }
        spec = replace(
            spec,
            **there,  # type: ignore[arg-type]
            runner_url=f"http://forge.test/actions/runner/releases/download/v{VERSION}/r.tar.gz",
            close_metadata=False,
        )
        (tmp_path / "spec.json").write_text(spec.to_json())
        environ = {
            "PATH": os.environ["PATH"],
            "RUNNER_ALLOW_RUNASROOT": "1",
            "PYTHONPATH": str(Path(bootstrap.__file__).parents[2]),
        }
        agent = subprocess.Popen(
            [sys.executable, "-m", "runner_action.agent", "run"],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        job = world.github.forge.queue_job(["train"], 0.2, f"env > {tmp_path}/seen")
        told, _ = agent.communicate(timeout=60)
        server.shutdown()
    assert job.conclusion == "success", told
    asked = "\n".join(proxy.asked)
    for part in (
        "GET http://forge.test/actions/runner/releases",
        "/actions/runner-registration",
        "/_runner/poll",
        "DELETE http://forge.test/api/v3/repos/octo/train",
    ):
        assert part in asked
    seen = (tmp_path / "seen").read_text()
    assert f"https_proxy=http://127.0.0.1:{server.server_port}" in seen
    assert "NO_PROXY=localhost,127.0.0.1,169.254.169.254" in seen
    assert json.dumps(spec.api_token) not in told
