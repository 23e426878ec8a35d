"""Downloads the runner program: it is unpacked while it arrives, and used only if its checksum
matches."""

from __future__ import annotations

import hashlib
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Optional

from .metadata import CLOUDS
from .removal import remove_tree
from .spec import AgentSpec

STALL = 60.0
"""Seconds in which nothing arrives, after which the attempt has failed."""
LAST_WORDS = "(%s && echo done) 2>&1 | tail -n 3"
DONE = "done\n"
"""The last lines of a command: on a full disk tar says more than a pipe holds."""


def fetch(spec: AgentSpec, folder: Path, command: str, **identity: Any) -> None:
    """Passes the program to `command` in `folder`, while it arrives. Nothing of it runs before the
    checksum is compared; if that does not match, everything is removed again. Raises ValueError
    then, and any other exception for what may pass."""
    sha256 = hashlib.sha256()
    url = spec.runner_url
    if spec.cloud not in CLOUDS:
        from .kept import source

        url = source(spec)
    with (
        open_archive(url, spec.download_token) as response,
        subprocess.Popen(
            ["sh", "-c", LAST_WORDS % command],
            cwd=str(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **identity,
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            with program.stdin:
                for block in iter(lambda: response.read(1 << 20), b""):
                    sha256.update(block)
                    program.stdin.write(block)
                if getattr(response, "length", 0):
                    raise OSError("cut off")
        except BrokenPipeError:  # the command ended early, and says why
            pass
        said = program.stdout.read().decode("utf-8", "replace")
    if not said.endswith(DONE):
        raise OSError(said)
    digest = sha256.hexdigest()
    if digest != spec.runner_sha256:
        remove_tree(folder)
        raise ValueError("checksum is %s, expected %s" % (digest, spec.runner_sha256))


def open_archive(url: str, token: Optional[str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "cml-runner"})
    if token:
        # Redirects do not get the token.
        request.add_unredirected_header("Authorization", "Bearer %s" % token)
    return urllib.request.urlopen(request, timeout=STALL)
