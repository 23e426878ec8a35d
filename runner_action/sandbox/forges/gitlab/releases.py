"""The releases of gitlab-runner that the embedded GitLab offers: the stand-in, as if it were of
each."""

from __future__ import annotations

from importlib.resources import files

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
