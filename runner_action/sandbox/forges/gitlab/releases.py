"""The releases of gitlab-runner that the embedded GitLab offers: the stand-in, as if it were of
each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from flask import Flask, Response

VERSION = "19.4.0"
RELEASES = ("17.0.3", "17.1.2", "18.5.0", "18.6.5", "18.6.6", "19.3.0", VERSION)
"""The last one is the latest."""


def program_of(version: str) -> bytes:
    source = files("runner_action.sandbox.forges.gitlab").joinpath("runner_standin.py").read_text()
    program = "#!/usr/bin/env python3\n" + source
    return program.replace(f'VERSION = "{VERSION}"', f'VERSION = "{version}"', 1).encode()


def checksums(digest: str) -> str:
    """The text of `release.sha256`."""
    return "".join(
        f"{digest}  binaries/gitlab-runner-{system}-{chip}\n"
        for system in ("linux", "darwin")
        for chip in ("amd64", "arm64")
    )


Latest = Callable[[], tuple[bytes, str]]


def routes(app: Flask, latest: Latest) -> None:
    """The server of the programs and their checksums. `latest`: the newest program, and the
    SHA-256 that is given for it."""

    def released(place: str) -> tuple[bytes, str]:
        """Empty if there is none."""
        if place in ("latest", f"v{VERSION}"):
            return latest()
        if place.removeprefix("v") not in RELEASES:
            return b"", ""
        program = program_of(place.removeprefix("v"))
        return program, hashlib.sha256(program).hexdigest()

    def sums(place: str) -> Any:
        program, digest = released(place)
        return checksums(digest) if program else ("", 404)

    def program(place: str, name: str) -> Response:
        return Response(released(place)[0])

    app.add_url_rule("/runner-downloads/<place>/release.sha256", "checksums", sums)
    app.add_url_rule("/runner-downloads/<place>/binaries/<name>", "program", program)
