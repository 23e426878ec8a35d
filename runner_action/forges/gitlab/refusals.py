"""Requests that GitLab cannot serve, refused before any call. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.forges.gitlab.programs import LATEST, OLDEST
from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    if isinstance(request, RestartRequest):
        yield (
            "command restart: GitLab starts nothing when a pipeline ends; its machines restart"
            " jobs themselves, with `restart-token`"
        )
        return
    version = request.runner_version
    if version != LATEST and tuple(map(int, version.split("."))) < OLDEST:
        oldest = ".".join(map(str, OLDEST[:2]))
        yield (
            f"runner-version {version}: cml-runner needs gitlab-runner {oldest} or later, which"
            " also works with an older GitLab; leave it out, or write a newer version"
        )
