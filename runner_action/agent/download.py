"""The forge's runner program: downloaded, unpacked while it arrives, and believed only when its
checksum is right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import IO, Any, Optional

from .removal import remove_tree
from .spec import AgentSpec

TRIES = 3
KEPT = "/opt/cml-runner"
"""Where our image for containers keeps the forges' runners (image/programs.py)."""


class DownloadFailed(Exception):
    """Why the runner program could not be had."""


def fetch(spec: AgentSpec, folder: Path, **identity: Any) -> None:
    """Unpacks the archive into `folder`. Nothing of it runs before the checksum was compared;
    with a wrong one nothing stays."""
    url = source(spec, Path(KEPT))
    for left in reversed(range(TRIES)):
        try:
            digest = _unpack(spec, url, folder, **identity)
            break
        except (OSError, DownloadFailed) as error:
            remove_tree(folder / "bin")
            if not left:
                raise DownloadFailed("%s: %s" % (spec.runner_url, error)) from None
            time.sleep(2)
    if digest != spec.runner_sha256:
        remove_tree(folder)
        raise DownloadFailed(
            "%s has checksum %s, expected %s" % (spec.runner_url, digest, spec.runner_sha256)
        )


def source(spec: AgentSpec, kept: Path) -> str:
    """The address of the program: of a file that is here already, if it is that very one."""
    file = kept / spec.runner_url.rsplit("/", 1)[-1]
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == spec.runner_sha256:
        return file.as_uri()
    return spec.runner_url


def open_archive(url: str, token: Optional[str]) -> IO[bytes]:
    asked = urllib.request.Request(url, headers={"User-Agent": "cml-runner"})
    if token:
        # Not to where a redirect leads.
        asked.add_unredirected_header("Authorization", "Bearer %s" % token)
    answer: IO[bytes] = urllib.request.urlopen(asked, timeout=60)
    return answer


def _unpack(spec: AgentSpec, url: str, folder: Path, **identity: Any) -> str:
    """One try: the stream goes into tar and the hash side by side. Returns the SHA-256 in
    hexadecimal."""
    hashed = hashlib.sha256()
    with open_archive(url, spec.download_token) as answer:
        if not spec.runner_url.endswith(".tar.gz"):  # gitlab-runner is one file
            with (folder / "gitlab-runner").open("wb") as file:
                os.chmod(file.name, 0o755)  # noqa: S103  a program that the job user runs
                for block in iter(lambda: answer.read(1 << 20), b""):
                    hashed.update(block)
                    file.write(block)
            return hashed.hexdigest()
        with subprocess.Popen(
            ["tar", "-xzf", "-", "-C", str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **identity,
        ) as tar:
            assert tar.stdin is not None
            for block in iter(lambda: answer.read(1 << 20), b""):
                hashed.update(block)
                tar.stdin.write(block)
    if tar.returncode:
        raise DownloadFailed("tar ended with exit code %d" % tar.returncode)
    return hashed.hexdigest()
