"""Placeholders for what GitLab will give to a launch, of the usual length. Pure."""

from __future__ import annotations

from runner_action.forges.filler import filler
from runner_action.forges.gitlab import programs
from runner_action.forges.gitlab.timeouts import before_jobs
from runner_action.model import Download, Registration, Secret

VERSION = "18.10.0"
TOKEN_LENGTH = 40
"""Characters of a runner's token after its prefix."""


def expected(architecture: str) -> tuple[Download, Registration]:
    program = programs.program("linux", architecture)
    download = Download(
        url=f"{programs.place(programs.DOWNLOADS, VERSION)}/{program}",
        sha256=filler(64, "sha256"),
        version=VERSION,
    )
    token = Secret(f"glrt-{filler(TOKEN_LENGTH, 'runner')}")
    notice = before_jobs({"build_timeout": 5400}, None)
    return download, Registration(runner_token=token, runner_id=123456789, before_jobs=notice)
