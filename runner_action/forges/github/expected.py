"""Placeholders for what GitHub will give to a launch, of the usual length. Pure."""

from __future__ import annotations

from runner_action.forges.filler import filler
from runner_action.model import Download, Registration, Secret
from runner_action.request import LaunchRequest

TOKEN_LENGTH = 29
"""Characters of registration and removal tokens."""
VERSION = "2.336.0"
RELEASE = f"https://github.com/actions/runner/releases/download/v{VERSION}"


def expected(request: LaunchRequest, architecture: str) -> tuple[Download, Registration]:
    download = Download(
        url=f"{RELEASE}/actions-runner-linux-{architecture}-{VERSION}.tar.gz",
        sha256=filler(64, "sha256"),
        version=VERSION,
    )
    removal = None if request.restart_token else Secret(filler(TOKEN_LENGTH, "removal"))
    token = Secret(filler(TOKEN_LENGTH, "token"))
    return download, Registration(token=token, removal_token=removal)
