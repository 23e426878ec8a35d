"""Programs for the jobs' image that no package of the distribution has: the runners of GitHub and
GitLab, in the form in which the agent would download them, GitHub's hooks for Kubernetes, and Node.

    python3 image/programs.py install ARCHITECTURE
        installs the programs for amd64 or arm64; the image's build calls it
    python3 image/programs.py check
        fails unless each program has its checksum in programs.sha256, and its project still
        publishes the same
    python3 image/programs.py pin
        writes that file from what the projects publish now: read it before you commit it

A build fails unless each program is the same as when its checksum was committed: it trusts neither
the server nor the project's list of checksums. Versions and addresses are the arguments of
runner.Dockerfile; another version (`--build-arg NODE=…`) has to be pinned as well (`NODE=… … pin`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PINS = "programs.sha256"
DOCKERFILE = "runner.Dockerfile"
KEPT = Path("/opt/cml-runner")
"""Where the agent looks before it downloads (agent/download.py)."""
X64 = {"amd64": "x64", "arm64": "arm64"}
Get = Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True)
class Program:
    name: str
    """In the list of checksums. Includes the version."""
    url: str
    sums: str
    """Where its project publishes checksums: a release on GitHub, or a list."""
    file: str
    """Its name there."""


def actions_runner(given: Mapping[str, str], architecture: str) -> Program:
    version = given["ACTIONS_RUNNER"]
    return _released(
        given,
        "actions/runner",
        version,
        f"actions-runner-linux-{X64[architecture]}-{version}.tar.gz",
    )


def container_hooks(given: Mapping[str, str]) -> Program:
    """With them, actions/runner creates pods for jobs with `container:`. Since 0.8, runner and pod
    need no common volume."""
    return _released(
        given,
        "actions/runner-container-hooks",
        given["HOOKS"],
        f"actions-runner-hooks-k8s-{given['HOOKS']}.zip",
    )


def gitlab_runner(given: Mapping[str, str], architecture: str) -> Program:
    version = given["GITLAB_RUNNER"]
    place = f"{given['GITLAB_RUNNER_DOWNLOADS']}/v{version}"
    file = f"binaries/gitlab-runner-linux-{architecture}"
    return Program(
        name=f"gitlab-runner-{version}-linux-{architecture}",
        url=f"{place}/{file}",
        sums=f"{place}/release.sha256",
        file=file,
    )


def node(given: Mapping[str, str], architecture: str) -> Program:
    place = f"{given['NODE_DIST']}/v{given['NODE']}"
    name = f"node-v{given['NODE']}-linux-{X64[architecture]}.tar.xz"
    return Program(name=name, url=f"{place}/{name}", sums=f"{place}/SHASUMS256.txt", file=name)


def _released(given: Mapping[str, str], repository: str, version: str, name: str) -> Program:
    url = f"{given['GITHUB']}/{repository}/releases/download/v{version}/{name}"
    return Program(
        name=name,
        url=url,
        sums=f"{given['GITHUB_API']}/repos/{repository}/releases/tags/v{version}",
        file=name,
    )


def of_both(given: Mapping[str, str]) -> list[Program]:
    """All programs, for amd64 and arm64."""
    each = [
        of(given, architecture)
        for of in (actions_runner, gitlab_runner, node)
        for architecture in X64
    ]
    return [*each, container_hooks(given)]


def published(program: Program, get: Get) -> str:
    """The SHA-256, in hex, that its project publishes now. GitHub computes one for every file of a
    release. Raises LookupError if there is none."""
    text = get(program.sums).decode()
    is_release = text.lstrip().startswith("{")
    checksums = dict(_assets(json.loads(text)) if is_release else _lines(text))
    if not re.fullmatch(r"[0-9a-f]{64}", checksums.get(program.file, "")):
        raise LookupError(f"{program.sums} has no SHA-256 of {program.file}")
    return checksums[program.file]


def _assets(release: Mapping[str, list[Mapping[str, str]]]) -> Iterator[tuple[str, str]]:
    for asset in release["assets"]:
        yield asset["name"], (asset.get("digest") or "").removeprefix("sha256:")


def _lines(listed: str) -> Iterator[tuple[str, str]]:
    """Lines as `sha256sum` writes them."""
    for words in map(str.split, listed.splitlines()):
        if len(words) == 2:
            yield words[1].lstrip("*./"), words[0]


def fetched(program: Program, pins: Mapping[str, str], get: Get) -> bytes:
    """Downloads a program. Raises SystemExit if its checksum differs, or is not in the list."""
    if program.name not in pins:
        raise SystemExit(
            f"image/{PINS} has no checksum of {program.name}: `python3 image/programs.py pin`"
            " writes it; read the difference before you commit it"
        )
    content = get(program.url)
    if (digest := hashlib.sha256(content).hexdigest()) != pins[program.name]:
        raise SystemExit(f"{program.url} has checksum {digest}, expected {pins[program.name]}")
    return content


def wrong(programs: list[Program], pins: Mapping[str, str], get: Get) -> Iterator[str]:
    """Programs without a checksum in the list, and those whose project publishes another one."""
    for program in programs:
        now = published(program, get)
        if program.name not in pins:
            yield f"{program.name} has no checksum in image/{PINS}; its project publishes {now}"
        elif now != pins[program.name]:
            yield (
                f"{program.name} has the checksum {pins[program.name]} in image/{PINS}, and {now}"
                " at its project"
            )


def install(given: Mapping[str, str], architecture: str, pins: Mapping[str, str], get: Get) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    for program in (actions_runner(given, architecture), gitlab_runner(given, architecture)):
        (KEPT / program.file.rpartition("/")[2]).write_bytes(fetched(program, pins, get))
    with zipfile.ZipFile(io.BytesIO(fetched(container_hooks(given), pins, get))) as packed:
        packed.extractall(KEPT / "k8s-hooks")
    javascript = fetched(node(given, architecture), pins, get)
    left_out = ("--exclude=*/include", "--exclude=*/share", "--exclude=*.md", "--exclude=*/LICENSE")
    subprocess.run(
        ["tar", "-xJ", "-C", "/usr/local", "--strip-components=1", *left_out],
        input=javascript,
        check=True,
    )


def http(url: str) -> bytes:
    """Sends `GH_TOKEN` to GitHub's API, which allows 60 requests an hour without a token."""
    token = os.environ.get("GH_TOKEN") if url.startswith("https://api.github.com/") else None
    headers = {
        "User-Agent": "cml-runner",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        content: bytes = response.read()
    return content


def main(words: list[str], environ: Mapping[str, str], get: Get = http, here: Path = HERE) -> int:
    pins = dict(_lines((here / PINS).read_text("utf-8")))
    if words[:1] == ["install"]:
        install(environ, words[1], pins, get)
        return 0
    given = {
        **dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", (here / DOCKERFILE).read_text("utf-8"), re.M)),
        **environ,
    }
    if words == ["pin"]:
        (here / PINS).write_text(
            "".join(f"{published(program, get)}  {program.name}\n" for program in of_both(given)),
            "utf-8",
        )
        return 0
    if words == ["check"]:
        problems = list(wrong(of_both(given), pins, get))
        print("\n".join(problems))
        return 1 if problems else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
