"""Downloads the runner program: it is unpacked while it arrives, and used only if its checksum
matches."""

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
"""Where our container image keeps the runner programs (image/programs.py)."""


class DownloadFailed(Exception):
    """Why the runner program could not be downloaded."""


def fetch(spec: AgentSpec, folder: Path, **identity: Any) -> None:
    """Unpacks the archive into `folder`. Nothing of it runs before the checksum is compared; if
    that does not match, everything is removed again. Raises DownloadFailed."""
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
    """The URL of the archive: a file:// URL if the image already holds the same one."""
    file = kept / spec.runner_url.rsplit("/", 1)[-1]
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == spec.runner_sha256:
        return file.as_uri()
    return spec.runner_url


def open_archive(url: str, token: Optional[str]) -> IO[bytes]:
    request = urllib.request.Request(url, headers={"User-Agent": "cml-runner"})
    if token:
        # Redirects do not get the token.
        request.add_unredirected_header("Authorization", "Bearer %s" % token)
    response: IO[bytes] = urllib.request.urlopen(request, timeout=60)
    return response


def _unpack(spec: AgentSpec, url: str, folder: Path, **identity: Any) -> str:
    """One attempt, which passes the stream on to tar and to the hash. Returns the SHA-256 as
    hexadecimal."""
    sha256 = hashlib.sha256()
    with open_archive(url, spec.download_token) as response:
        if not spec.runner_url.endswith(".tar.gz"):  # gitlab-runner is one file
            with (folder / "gitlab-runner").open("wb") as file:
                os.chmod(file.name, 0o755)  # noqa: S103  a program that the job user runs
                for block in iter(lambda: response.read(1 << 20), b""):
                    sha256.update(block)
                    file.write(block)
            return sha256.hexdigest()
        with subprocess.Popen(
            ["tar", "-xzf", "-", "-C", str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **identity,
        ) as tar:
            assert tar.stdin is not None
            for block in iter(lambda: response.read(1 << 20), b""):
                sha256.update(block)
                tar.stdin.write(block)
    if tar.returncode:
        raise DownloadFailed("tar failed with exit code %d" % tar.returncode)
    return sha256.hexdigest()
