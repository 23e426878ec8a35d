"""Requests that GitLab cannot serve, refused before any call. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    if isinstance(request, RestartRequest):
        yield (
            "command restart: GitLab starts nothing when a pipeline ends; its machines restart"
            " jobs themselves, with `restart-token`"
        )
