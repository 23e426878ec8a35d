"""The runner program: from where it is kept or from the forge, and believed by its checksum
only."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path

import pytest

from runner_action.agent import download
from runner_action.agent.spec import AgentSpec
from tests.agent.test_spec import SPEC

PROGRAM = b"#!/bin/sh\necho a program\n"


def spec_of(file: Path, content: bytes = PROGRAM) -> AgentSpec:
    file.write_bytes(content)
    return dataclasses.replace(
        SPEC, runner_url=file.as_uri(), runner_sha256=hashlib.sha256(content).hexdigest()
    )


def test_what_the_image_keeps_is_not_downloaded_if_it_is_that_very_one(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    spec = spec_of(tmp_path / "gitlab-runner-linux-amd64")
    assert download.source(spec, kept) == spec.runner_url
    (kept / "gitlab-runner-linux-amd64").write_bytes(b"another version")
    assert download.source(spec, kept) == spec.runner_url
    (kept / "gitlab-runner-linux-amd64").write_bytes(PROGRAM)
    assert download.source(spec, kept) == (kept / "gitlab-runner-linux-amd64").as_uri()


def test_a_program_of_one_file_is_put_there_to_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "runner"
    folder.mkdir()
    download.fetch(spec_of(tmp_path / "gitlab-runner-linux-amd64"), folder)
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
    with pytest.raises(download.DownloadFailed, match="expected 0000"):
        download.fetch(spec, folder)
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
        with pytest.raises(download.DownloadFailed, match="expected 0000"):
            download.fetch(spec, folder)
    finally:
        subprocess.run(
            ["umount", "-l", str(folder / "_work")], stderr=subprocess.DEVNULL, check=False
        )
    assert (disk / "cache").exists()
