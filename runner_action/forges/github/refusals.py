"""Requests that GitHub cannot serve, refused before any call. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.forges.github import levels
from runner_action.forges.github.permissions import APPS_NOT_HERE
from runner_action.model import App
from runner_action.request import LaunchRequest, RestartRequest

OLDEST = (2, 329, 0)
"""GitHub's minimum since 2026 (github.blog/changelog, minimum version enforcement for self-hosted
runners). An Enterprise Server has a minimum of its own."""


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    yield from levels.misread(request.repository)
    level = levels.level_of(request.repository)
    if level is levels.Level.ENTERPRISE and isinstance(request.token, App):
        yield f"app-id: {APPS_NOT_HERE}; pass one as `token`, or launch for an organisation"
    if isinstance(request, RestartRequest):
        if level is not levels.Level.REPOSITORY:
            yield (
                f"command restart: a run belongs to a repository, and {request.repository.url} is"
                f" an {level}; write `repo` as `owner/name`"
            )
        return
    if request.runner_group and level is levels.Level.REPOSITORY:
        yield (
            f"runner-group {request.runner_group}: a repository has no runner groups: leave it out,"
            " or write the organisation's address as `repo`"
        )
    if request.runner_version == "latest" or not levels.in_the_cloud(request.repository):
        return
    if tuple(map(int, request.runner_version.split("."))) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield (
            f"runner-version {request.runner_version}: GitHub registers no runner older than"
            f" {oldest}; leave it out, or write a newer version"
        )
