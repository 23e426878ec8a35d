"""The image of jobs: built on Ubuntu with stand-ins for the programs that come from elsewhere,
and an agent that lives its life in it."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.bootstrap import fitting
from runner_action.model import Identity, Machine
from runner_action.providers.kubernetes import ladder, plan, requests
from runner_action.sandbox.forges.github.archive import tarball
from runner_action.sandbox.world import World
from tests.e2e.engine import Engine, Missing, checkout
from tests.fakes import agent_spec
from tests.sandbox.conftest import until
from tests.test_launch import request

TAG = "cml-runner:e2e-jobs"
DOCKERFILE = "image/runner.Dockerfile"
VERSIONS = {
    "ACTIONS_RUNNER": "2.336.0",
    "GITLAB_RUNNER": "19.4.0",
    "NODE": "24.11.1",
    "HOOKS": "0.8.1",
}


def served(world: World) -> dict[str, bytes]:
    """What the three projects publish, as far as the build asks: path -> content."""
    runner, name = (
        tarball().content,
        f"actions-runner-linux-x64-{VERSIONS['ACTIONS_RUNNER']}.tar.gz",
    )
    packed, script = io.BytesIO(), b"#!/bin/sh\necho v24.11.1\n"
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        entry = tarfile.TarInfo("node/bin/node")
        entry.mode, entry.size = 0o755, len(script)
        archive.addfile(entry, io.BytesIO(script))
    node = packed.getvalue()
    zipped = io.BytesIO()
    hooks = f"actions-runner-hooks-k8s-{VERSIONS['HOOKS']}.zip"
    with zipfile.ZipFile(zipped, "w") as archive_of_hooks:
        archive_of_hooks.writestr("index.js", "// stands in")
    return {
        f"/actions/runner-container-hooks/releases/download/v{VERSIONS['HOOKS']}/{hooks}": (
            zipped.getvalue()
        ),
        f"/actions/runner/releases/download/v{VERSIONS['ACTIONS_RUNNER']}/{name}": runner,
        "/v19.4.0/binaries/gitlab-runner-linux-amd64": world.gitlab.program,
        "/v24.11.1/node-v24.11.1-linux-x64.tar.xz": node,
    }


def pins(files: dict[str, bytes]) -> str:
    """As image/programs.sha256 is written, of the stand-ins."""
    names = {path: path.rpartition("/")[2] for path in files} | {
        "/v19.4.0/binaries/gitlab-runner-linux-amd64": "gitlab-runner-19.4.0-linux-amd64"
    }
    return "".join(
        f"{hashlib.sha256(content).hexdigest()}  {names[path]}\n" for path, content in files.items()
    )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("gitlab", boots=False) as made:
        yield made


@pytest.fixture(scope="module")
def jobs_image(engine: Engine, world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    files: dict[str, bytes] = {}

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    base = f"http://127.0.0.1:{server.server_port}"
    files.update(served(world))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        engine.base(DOCKERFILE)
    except Missing as missing:
        pytest.skip(f"SKIPPED LOUDLY: this machine has not {missing}")
    context = checkout(tmp_path_factory.mktemp("context"))
    (context / "image/programs.sha256").write_text(pins(files))
    given = {**VERSIONS, "GITHUB": base, "GITLAB_RUNNER_DOWNLOADS": base, "NODE_DIST": base}
    try:
        return engine.build(
            TAG,
            *(word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")),
            dockerfile=DOCKERFILE,
            context=context,
        )
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "tool", ["git", "python", "pip", "node", "docker", "gcc", "make", "curl", "jq", "sudo", "tini"]
)
def test_jobs_find_the_common_tools(tool: str, engine: Engine, jobs_image: str) -> None:
    assert engine.docker("run", "--rm", "--entrypoint", tool, jobs_image, "--version").stdout


def test_a_job_installs_with_pip_for_itself_what_it_needs(
    engine: Engine, jobs_image: str, tmp_path: Path
) -> None:
    """As `pip install -r requirements.txt` of CML's examples. The wheel is made here: nobody's
    network is asked."""
    inside = {
        "hello.py": "def main(): print('hello from', __file__)\n",
        "hello-1.dist-info/entry_points.txt": "[console_scripts]\nhello = hello:main\n",
    }
    inside |= {
        "hello-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1\n",
        "hello-1.dist-info/RECORD": "",
    }
    inside |= {
        "hello-1.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
    }
    with zipfile.ZipFile(tmp_path / "hello-1-py3-none-any.whl", "w") as wheel:
        for name, text in inside.items():
            wheel.writestr(name, text)
    tmp_path.chmod(0o755)
    mount = f"type=bind,source={tmp_path},target=/wheels,readonly"
    job = "pip install --quiet --no-index /wheels/*.whl && hello"
    told = engine.docker(
        "run",
        "--rm",
        "--user",
        "runner",
        "--env",
        "HOME=/home/runner",
        "--mount",
        mount,
        "--entrypoint",
        "sh",
        jobs_image,
        "-c",
        job,
    )
    assert told.stdout.startswith("hello from /home/runner/.local/lib/")


def test_an_agent_lives_in_it_with_the_runner_that_it_brings(
    engine: Engine, jobs_image: str, world: World, tmp_path: Path
) -> None:
    """As a pod does. Nothing is downloaded: the address in the spec leads nowhere, the checksum
    is that of the program inside."""
    seat = world.forge.seat("cml-pod", ["pod"], ephemeral=False)
    spec = agent_spec(
        name="cml-pod",
        forge="gitlab",
        api_url=f"{world.gitlab.server_url}/api/v4",
        labels=("pod",),
        idle_timeout=4,
        first_job_timeout=30,
        runner_url="http://127.0.0.1:9/gitlab-runner-linux-amd64",
        runner_sha256=world.gitlab.sha256,
        runner_token=seat.secret,
    )
    file = tmp_path / "spec.json"
    file.write_text(spec.to_json())
    mount = f"type=bind,source={file},target=/var/lib/cml-runner/spec.json,readonly"
    name = f"cml-runner-pod-{seat.secret[-8:]}"
    engine.docker(
        "run", "--detach", "--name", name, "--network", "host", "--mount", mount, jobs_image
    )
    try:
        job = world.forge.queue_job(["pod"], 0.2, "id -un; python --version")
        until(lambda: job.status == "completed", "the job", 60)
        assert job.conclusion == "success"
        assert world.gitlab.jobs.traces[job.id].startswith("runner\nPython 3.12")
        assert engine.docker("wait", name, timeout=60).stdout.strip() == "0"
        said = engine.docker("logs", name).stdout
        assert '"stage": "deregistered"' in said
        assert seat.secret not in said
        assert world.forge.seats() == []
    finally:
        engine.docker("rm", "--force", name, check=False)


def test_a_pod_of_two_containers_keeps_its_secrets_from_the_job(
    engine: Engine, jobs_image: str, world: World, tmp_path: Path
) -> None:
    """Guard and runner of a real manifest, each in a container as the restricted standard wants
    it: user 1001, no capability, no way to more rights."""
    seat = world.forge.seat("cml-two", ["two"], ephemeral=False)
    asked = request(
        "--cloud=kubernetes",
        "--driver=gitlab",
        "--repo=https://gitlab.com/octo/train",
        f"--cloud-image={jobs_image}",
    )
    assert asked.cloud
    spec = agent_spec(
        name="cml-two",
        forge="gitlab",
        cloud="kubernetes",
        api_url=f"{world.gitlab.server_url}/api/v4",
        labels=("two",),
        idle_timeout=4,
        first_job_timeout=30,
        runner_url="http://127.0.0.1:9/gitlab-runner-linux-amd64",
        runner_sha256=world.gitlab.sha256,
        runner_token=seat.secret,
        api_token="canary-api-token",
    )
    machine = Machine(
        identity=Identity(name="cml-two", key="k"),
        user_data=fitting.user_data(spec, asked, 1_000_000),
        tags={},
    )
    pod = requests.job(ladder.placements(plan.plan(asked.cloud), asked.cloud)[0], machine, 1)[
        "spec"
    ]["template"]["spec"]
    names = started(engine, pod, machine.user_data, tmp_path)
    try:
        look = (
            f"id -u; cat {requests.HOME}/spec.json {requests.BUNDLE}/agent.pyz"
            f" {requests.TOLD}/spec.json 2>&1 || :; "
        )
        look += f"touch {requests.PROGRAM}/x {requests.GUARD}/x 2>&1 || :; "
        look += "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a canary; true"
        job = world.forge.queue_job(["two"], 0.2, look)
        until(lambda: job.status == "completed", "the job", 60)
        trace = world.gitlab.jobs.traces[job.id]
        assert trace.startswith("1001\n")
        assert trace.count("No such file") == 3
        assert trace.count("Read-only file system") == 2, trace
        assert "canary" not in trace
        assert engine.docker("wait", names[1], timeout=60).stdout.strip() == "0"
        assert '"stage": "deregistered"' in engine.docker("logs", names[1]).stdout
        engine.docker("stop", "--time", "25", names[0])
        assert engine.docker("wait", names[0]).stdout.strip() == "0"
        assert world.forge.seats() == []
    finally:
        for name in names:
            engine.docker("rm", "--force", name, check=False)


def test_the_guard_takes_the_runner_off_the_list_when_all_of_its_container_was_killed(
    engine: Engine, jobs_image: str, world: World, tmp_path: Path
) -> None:
    """As the kernel does to a container over its memory."""
    seat = world.forge.seat("cml-oom", ["oom"], ephemeral=False)
    asked = request(
        "--cloud=kubernetes",
        "--driver=gitlab",
        "--repo=https://gitlab.com/octo/train",
        f"--cloud-image={jobs_image}",
    )
    assert asked.cloud
    spec = agent_spec(
        name="cml-oom",
        forge="gitlab",
        cloud="kubernetes",
        labels=("oom",),
        runner_token=seat.secret,
        api_url=f"{world.gitlab.server_url}/api/v4",
        runner_url="http://127.0.0.1:9/gitlab-runner-linux-amd64",
        runner_sha256=world.gitlab.sha256,
    )
    machine = Machine(
        identity=Identity(name="cml-oom", key="k"),
        user_data=fitting.user_data(spec, asked, 1_000_000),
        tags={},
    )
    pod = requests.job(ladder.placements(plan.plan(asked.cloud), asked.cloud)[0], machine, 1)[
        "spec"
    ]["template"]["spec"]
    names = started(engine, pod, machine.user_data, tmp_path)
    try:
        until(
            lambda: '"stage": "online"' in engine.docker("logs", names[1]).stdout,
            "the runner to be online",
            60,
        )
        engine.docker("kill", names[1])
        engine.docker("stop", "--time", "25", names[0])
        assert '"stage": "deregistered"' in engine.docker("logs", names[0]).stdout
        assert world.forge.seats() == []
    finally:
        for name in names:
            engine.docker("rm", "--force", name, check=False)


def started(engine: Engine, pod: dict[str, Any], bundle: bytes, folder: Path) -> list[str]:
    """Guard and runner, after the container that hands over: their names."""
    for volume in pod["volumes"]:
        (folder / volume["name"]).mkdir()
        os.chown(folder / volume["name"], 0, requests.USER)
        (folder / volume["name"]).chmod(0o2777)
    (folder / "bundle/agent.pyz").write_bytes(bundle)
    os.chown(folder / "bundle/agent.pyz", 0, requests.USER)
    (folder / "bundle/agent.pyz").chmod(
        next(one["secret"]["defaultMode"] for one in pod["volumes"] if "secret" in one)
    )
    containers = [*pod["initContainers"], *pod["containers"]]
    name = start(engine, containers[0], folder)
    assert engine.docker("wait", name, timeout=60).stdout.strip() == "0", engine.docker(
        "logs", name
    ).stdout
    engine.docker("rm", name)
    return [start(engine, container, folder) for container in containers[1:]]


def start(engine: Engine, container: dict[str, Any], folder: Path) -> str:
    """A container of a pod, as its manifest has it. Its name."""
    name = f"cml-runner-{folder.name}-{container['name']}"
    user = container["securityContext"].get("runAsUser", requests.USER)
    closed = [
        "--user",
        f"{user}:{requests.USER}",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--network",
        "host",
    ]
    mounts = [
        f"type=bind,source={folder}/{one['name']},target={one['mountPath']}"
        + (",readonly" if one.get("readOnly") else "")
        for one in container["volumeMounts"]
    ]
    given = [word for mount in mounts for word in ("--mount", mount)] + [
        "--env",
        "INSTANCE_ID=cml-pod-x",
        "--workdir",
        container["workingDir"],
    ]
    program, *argv = container["command"]
    engine.docker(
        "run",
        "--detach",
        "--name",
        name,
        *closed,
        *given,
        "--entrypoint",
        program,
        container["image"],
        *argv,
    )
    return name
