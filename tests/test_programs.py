"""Programs that the image of jobs brings along: found for each architecture, and believed by checksum only."""

from __future__ import annotations

import hashlib
import json

import pytest

from image import programs

CONTENT = b"a program"
SUM = hashlib.sha256(CONTENT).hexdigest()
GITHUB, GITLAB, NODE = "https://api.test", "https://gitlab.test", "https://node.test"


def get(url: str) -> bytes:
    if url == f"{GITHUB}/repos/actions/runner/releases/tags/v2.1.0":
        names = [f"actions-runner-{system}-{chip}-2.1.0.tar.gz" for system in ("osx", "linux") for chip in ("arm64", "x64")]
        return json.dumps(
            {"assets": [{"name": name, "digest": f"sha256:{SUM}", "browser_download_url": f"https://files.test/{name}"} for name in names]}
        ).encode()
    if url == f"{GITHUB}/repos/actions/runner-container-hooks/releases/tags/v0.8.1":
        names = [f"actions-runner-hooks-{kind}-0.8.1.zip" for kind in ("docker", "k8s")]
        return json.dumps(
            {"assets": [{"name": name, "digest": f"sha256:{SUM}", "browser_download_url": f"https://files.test/{name}"} for name in names]}
        ).encode()
    if url == f"{GITLAB}/v19.4.0/release.sha256":
        return f"{'0' * 64} *deb/gitlab-runner_amd64.deb\n{SUM} *binaries/gitlab-runner-linux-amd64\n{SUM} *binaries/gitlab-runner-linux-arm64\n".encode()
    if url == f"{NODE}/v24.1.0/SHASUMS256.txt":
        return f"{SUM}  node-v24.1.0-linux-x64.tar.xz\n{SUM}  node-v24.1.0-linux-arm64.tar.xz\n".encode()
    return CONTENT


@pytest.mark.parametrize(("architecture", "chip"), [("amd64", "x64"), ("arm64", "arm64")])
def test_each_program_is_found_with_its_checksum(architecture: str, chip: str) -> None:
    found = [
        programs.actions_runner("2.1.0", architecture, GITHUB, get),
        programs.gitlab_runner("19.4.0", architecture, GITLAB, get),
        programs.node("24.1.0", architecture, NODE, get),
        programs.container_hooks("0.8.1", GITHUB, get),
    ]
    assert [program.url for program in found] == [
        f"https://files.test/actions-runner-linux-{chip}-2.1.0.tar.gz",
        f"{GITLAB}/v19.4.0/binaries/gitlab-runner-linux-{architecture}",
        f"{NODE}/v24.1.0/node-v24.1.0-linux-{chip}.tar.xz",
        "https://files.test/actions-runner-hooks-k8s-0.8.1.zip",
    ]
    assert [programs.fetched(program, get) for program in found] == [CONTENT] * 4


def test_another_checksum_ends_the_build() -> None:
    with pytest.raises(SystemExit, match="expected 0000"):
        programs.fetched(programs.Program("https://files.test/x", "0" * 64), get)
