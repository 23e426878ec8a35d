"""The list of forges. A client library is loaded only when its forge is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.forges.base import Forge
from runner_action.model import ForgeName, LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    """Why no forge of ours can serve this request; told before any library is loaded."""
    if request.forge is not ForgeName.GITHUB:
        yield f"driver {request.forge}: this version works with github only; {request.forge} is not there yet"
    elif request.repository.path.count("/") != 1:
        yield f"repo {request.repository.url} is not a repository; this version works with `https://github.com/owner/name`"
    if isinstance(request, LaunchRequest) and request.runner_group:
        yield f"runner-group {request.runner_group}: a repository has no runner groups, and this version works with repositories only; leave it out"


def forge_for(request: LaunchRequest | RestartRequest, api_url: str | None = None) -> Forge:
    """The forge of the request. `api_url`: where the CI job says its forge's API is; if None, the repository's address tells."""
    from runner_action.forges.github import GitHub

    assert request.forge is ForgeName.GITHUB
    return GitHub(request.repository, request.token, api_url)
