"""The runner program: from where it is kept or from the forge, and believed by its checksum
only."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner_action.agent import become, download, gitlab, kept
from runner_action.agent.forge import Member
from runner_action.agent.spec import AgentSpec
from tests.agent.test_spec import SPEC

PROGRAM = b"#!/bin/sh\necho a program\n"


def fetch(spec: AgentSpec, folder: Path) -> None:
    """GitLab's program is one file, GitHub's an archive."""
    archive = spec.runner_url.endswith(".tar.gz")
    download.fetch(spec, folder, Member.unpack if archive else gitlab.Forge.unpack)


def spec_of(file: Path, content: bytes = PROGRAM) -> AgentSpec:
    file.write_bytes(content)
    return dataclasses.replace(
        SPEC, runner_url=file.as_uri(), runner_sha256=hashlib.sha256(content).hexdigest()
    )


def test_what_the_image_keeps_is_not_downloaded_if_it_is_that_very_one(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    spec = spec_of(tmp_path / "gitlab-runner-linux-amd64")
    assert kept.source(spec, folder) == spec.runner_url
    (folder / "gitlab-runner-linux-amd64").write_bytes(b"another version")
    assert kept.source(spec, folder) == spec.runner_url
    (folder / "gitlab-runner-linux-amd64").write_bytes(PROGRAM)
    assert kept.source(spec, folder) == (folder / "gitlab-runner-linux-amd64").as_uri()


def test_a_program_of_one_file_is_put_there_to_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "runner"
    folder.mkdir()
    fetch(spec_of(tmp_path / "gitlab-runner-linux-amd64"), folder)
    assert (
        subprocess.run([str(folder / "gitlab-runner")], stdout=subprocess.PIPE, check=True).stdout
        == b"a program\n"
    )


def test_with_a_wrong_checksum_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "runner"
    folder.mkdir()
    spec = dataclasses.replace(
        spec_of(tmp_path / "gitlab-runner-linux-amd64"), runner_sha256="0" * 64
    )
    with pytest.raises(ValueError, match="expected 0000"):
        fetch(spec, folder)
    assert not folder.exists()


def test_what_is_mounted_in_its_place_is_not_emptied_with_it(tmp_path: Path) -> None:
    """As by a pod's template, or by a startup script that puts all work on another disk."""
    folder, disk = tmp_path / "runner", tmp_path / "disk"
    (folder / "_work").mkdir(parents=True)
    disk.mkdir()
    (disk / "cache").write_text("of earlier machines")
    if subprocess.run(
        ["mount", "--bind", str(disk), str(folder / "_work")], stderr=subprocess.PIPE, check=False
    ).returncode:
        pytest.skip("SKIPPED LOUDLY: nothing can be mounted here")
    spec = dataclasses.replace(
        spec_of(tmp_path / "gitlab-runner-linux-amd64"), runner_sha256="0" * 64
    )
    try:
        with pytest.raises(ValueError, match="expected 0000"):
            fetch(spec, folder)
    finally:
        subprocess.run(
            ["umount", "-l", str(folder / "_work")], stderr=subprocess.DEVNULL, check=False
        )
    assert (disk / "cache").exists()


def archive(size: int) -> bytes:
    """A runner program with files of so many bytes that cannot be compressed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as files:
        for name in ("externals/node", "bin/Runner.Listener"):
            entry = tarfile.TarInfo(name)
            entry.size = size // 2
            files.addfile(entry, io.BytesIO(os.urandom(size // 2)))
    return packed.getvalue()


Serve = Callable[..., AgentSpec]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves `sent`, and then closes the connection, whatever was announced."""
    servers: list[ThreadingHTTPServer] = []

    def start(name: str, content: bytes, sent: bytes, headers: dict[str, str]) -> AgentSpec:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                for header in headers.items():
                    self.send_header(*header)
                self.end_headers()
                try:
                    self.wfile.write(sent)
                except OSError:  # the client has heard enough
                    pass
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{servers[-1].server_port}/{name}"
        digest = hashlib.sha256(content).hexdigest()
        return dataclasses.replace(SPEC, runner_url=url, runner_sha256=digest)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NAMES = ("actions-runner.tar.gz", "gitlab-runner-linux-amd64")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("missing", [1, 100_000])
def test_a_stream_that_is_cut_is_told_and_may_pass(
    missing: int, chunked: bool, name: str, serve: Serve, tmp_path: Path
) -> None:
    content = archive(300_000)
    sent = content[:-missing]
    headers = {"Content-Length": str(len(content))}
    if chunked:
        headers = {"Transfer-Encoding": "chunked"}
        sent = b"%x\r\n" % len(content) + sent
    spec = serve(name, content, sent, headers)
    with pytest.raises((OSError, HTTPException)) as error:
        fetch(spec, tmp_path)
    assert "IncompleteRead" in str(error.value) if chunked else "cut off" in str(error.value)
    assert not become.FINAL(str(error.value))


def test_what_was_left_of_a_failed_attempt_does_no_harm(serve: Serve, tmp_path: Path) -> None:
    content = archive(300_000)
    headers = {"Content-Length": str(len(content))}
    with pytest.raises(OSError, match="cut off"):
        fetch(serve(NAMES[0], content, content[:-9], headers), tmp_path)
    fetch(serve(NAMES[0], content, content, headers), tmp_path)
    assert (tmp_path / "externals/node").stat().st_size == 150_000


@pytest.mark.parametrize("size", [20, 3 << 20])
def test_tar_is_heard_in_its_own_words(size: int, serve: Serve, tmp_path: Path) -> None:
    """It ends before it has read everything, if that is more than a pipe holds."""
    page = b"<html>Log in to this network</html>".ljust(size)
    spec = serve(NAMES[0], page, page, {"Content-Length": str(len(page))})
    with pytest.raises(OSError, match="not in gzip format") as error:
        fetch(spec, tmp_path)
    assert "Broken pipe" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_without_room_is_told_as_that_and_is_final(
    name: str, serve: Serve, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, stderr=subprocess.PIPE, check=False).returncode:
        pytest.skip("SKIPPED LOUDLY: nothing can be mounted here")
    content = archive(3 << 20)
    spec = serve(name, content, content, {"Content-Length": str(len(content))})
    try:
        with pytest.raises(OSError, match="No space left") as error:
            fetch(spec, small)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert become.FINAL(str(error.value))
