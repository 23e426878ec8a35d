"""What GitLab cannot serve, told before anything is asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    if isinstance(request, RestartRequest):
        yield (
            "command restart: GitLab starts nothing when a pipeline ends; its machines restart"
            " jobs themselves, with `restart-token`"
        )
