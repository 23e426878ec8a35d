"""Programs for the image of jobs that are in no package: the forges' runners, kept as they come for the agent, GitHub's hooks for Kubernetes, and Node.

    python3 image/programs.py ARCHITECTURE [ACTIONS_RUNNER GITLAB_RUNNER NODE HOOKS]     amd64 or arm64, and versions

Each is believed only if it has the checksum that its own project publishes. Where they come from is said by the
Dockerfile, and can be changed for networks with a mirror: GITHUB_API, GITLAB_RUNNER_DOWNLOADS, NODE_DIST.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT = Path("/opt/cml-runner")
"""Where the agent looks before it downloads (agent/download.py)."""
X64 = {"amd64": "x64", "arm64": "arm64"}
Get = Callable[[str], bytes]


@dataclass(frozen=True)
class Program:
    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def actions_runner(version: str, architecture: str, api: str, get: Get) -> Program:
    return _released("actions/runner", version, f"actions-runner-linux-{X64[architecture]}-{version}.tar.gz", api, get)


def container_hooks(version: str, api: str, get: Get) -> Program:
    """By which actions/runner makes pods of jobs with `container:`, without a volume that both see (0.8 and later)."""
    return _released("actions/runner-container-hooks", version, f"actions-runner-hooks-k8s-{version}.zip", api, get)


def gitlab_runner(version: str, architecture: str, downloads: str, get: Get) -> Program:
    place = f"{downloads}/v{version}"
    return _listed(
        get(f"{place}/release.sha256").decode(), f"{place}/binaries/gitlab-runner-linux-{architecture}", "binaries/gitlab-runner-linux-" + architecture
    )


def node(version: str, architecture: str, dist: str, get: Get) -> Program:
    name = f"node-v{version}-linux-{X64[architecture]}.tar.xz"
    return _listed(get(f"{dist}/v{version}/SHASUMS256.txt").decode(), f"{dist}/v{version}/{name}", name)


def _released(repository: str, version: str, name: str, api: str, get: Get) -> Program:
    """GitHub computes the digest of every file of a release."""
    release = json.loads(get(f"{api}/repos/{repository}/releases/tags/v{version}"))
    asset = next(one for one in release["assets"] if one["name"] == name)
    return Program(asset["browser_download_url"], asset["digest"].removeprefix("sha256:"))


def _listed(sums: str, url: str, name: str) -> Program:
    """Raises StopIteration if the list has no such file."""
    return Program(url, next(words[0] for words in map(str.split, sums.splitlines()) if words[1].lstrip("*./") == name))


def fetched(program: Program, get: Get) -> bytes:
    content = get(program.url)
    if (digest := hashlib.sha256(content).hexdigest()) != program.sha256:
        raise SystemExit(f"{program.url} has checksum {digest}, expected {program.sha256}")
    return content


def http(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "cml-runner"}), timeout=120) as answer:
        found: bytes = answer.read()
    return found


def main(words: list[str], environ: Mapping[str, str], get: Get = http) -> None:
    architecture, actions, gitlab, node_version, hooks = words
    api, downloads = environ["GITHUB_API"], environ["GITLAB_RUNNER_DOWNLOADS"]
    KEPT.mkdir(parents=True, exist_ok=True)
    for program in (actions_runner(actions, architecture, api, get), gitlab_runner(gitlab, architecture, downloads, get)):
        (KEPT / program.name).write_bytes(fetched(program, get))
    with zipfile.ZipFile(io.BytesIO(fetched(container_hooks(hooks, api, get), get))) as packed:
        packed.extractall(KEPT / "k8s-hooks")
    javascript = fetched(node(node_version, architecture, environ["NODE_DIST"], get), get)
    left_out = ("--exclude=*/include", "--exclude=*/share", "--exclude=*.md", "--exclude=*/LICENSE")
    subprocess.run(["tar", "-xJ", "-C", "/usr/local", "--strip-components=1", *left_out], input=javascript, check=True)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
