"""The image of jobs: built on Ubuntu with stand-ins for the programs that come from elsewhere, and an agent that lives its life in it."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.sandbox.standin import tarball
from runner_action.sandbox.world import World
from tests.e2e.engine import Engine, Missing
from tests.fakes import agent_spec
from tests.sandbox.conftest import until

TAG = "cml-runner:e2e-jobs"
DOCKERFILE = "image/runner.Dockerfile"
VERSIONS = {"ACTIONS_RUNNER": "2.336.0", "GITLAB_RUNNER": "19.4.0", "NODE": "24.11.1"}


def served(world: World, base: str) -> dict[str, bytes]:
    """What the three projects publish, as far as the build asks: path -> content."""

    def sum_of(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    runner, name = tarball().content, f"actions-runner-linux-x64-{VERSIONS['ACTIONS_RUNNER']}.tar.gz"
    asset = {"name": name, "digest": f"sha256:{sum_of(runner)}", "browser_download_url": f"{base}/{name}"}
    packed, script = io.BytesIO(), b"#!/bin/sh\necho v24.11.1\n"
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        entry = tarfile.TarInfo("node/bin/node")
        entry.mode, entry.size = 0o755, len(script)
        archive.addfile(entry, io.BytesIO(script))
    node = packed.getvalue()
    return {
        f"/repos/actions/runner/releases/tags/v{VERSIONS['ACTIONS_RUNNER']}": json.dumps({"assets": [asset]}).encode(),
        f"/{name}": runner,
        "/v19.4.0/release.sha256": f"{world.gitlab.sha256}  binaries/gitlab-runner-linux-amd64\n".encode(),
        "/v19.4.0/binaries/gitlab-runner-linux-amd64": world.gitlab.program,
        "/v24.11.1/SHASUMS256.txt": f"{sum_of(node)}  node-v24.11.1-linux-x64.tar.xz\n".encode(),
        "/v24.11.1/node-v24.11.1-linux-x64.tar.xz": node,
    }


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("gitlab", boots=False) as made:
        yield made


@pytest.fixture(scope="module")
def jobs_image(engine: Engine, world: World) -> str:
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
    files.update(served(world, base))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        engine.base(DOCKERFILE)
    except Missing as missing:
        pytest.skip(f"SKIPPED LOUDLY: this machine has not {missing}")
    given = {**VERSIONS, "GITHUB_API": base, "GITLAB_RUNNER_DOWNLOADS": base, "NODE_DIST": base}
    try:
        return engine.build(TAG, *(word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")), dockerfile=DOCKERFILE)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("tool", ["git", "python", "pip", "node", "docker", "gcc", "make", "curl", "jq", "sudo", "tini"])
def test_jobs_find_the_common_tools(tool: str, engine: Engine, jobs_image: str) -> None:
    assert engine.docker("run", "--rm", "--entrypoint", tool, jobs_image, "--version").stdout


def test_an_agent_lives_in_it_with_the_runner_that_it_brings(engine: Engine, jobs_image: str, world: World, tmp_path: Path) -> None:
    """As a pod does. Nothing is downloaded: the address in the spec leads nowhere, the checksum is that of the program inside."""
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
    engine.docker("run", "--detach", "--name", name, "--network", "host", "--mount", mount, jobs_image)
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
