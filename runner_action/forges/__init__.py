"""The list of forges. A client library is loaded only when its forge is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from runner_action.forges.base import Forge, Rerunning
from runner_action.model import ForgeName
from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    """Why no forge of ours can serve this request; told before any library is loaded."""
    github = request.forge is ForgeName.GITHUB
    if github and request.repository.path.count("/") != 1:
        yield f"repo {request.repository.url} is not a repository; this version works with `https://github.com/owner/name`"
    if isinstance(request, RestartRequest):
        if not github:
            yield "command restart: GitLab starts nothing when a pipeline ends; its machines restart jobs themselves, with `restart-token`"
        return
    if request.runner_group:
        yield f"runner-group {request.runner_group}: repositories and GitLab have no runner groups, and this version knows no organisations; leave it out"


def forge_for(request: LaunchRequest, api_url: str | None = None, certificates: str | None = None) -> Forge:
    """The forge of the request. `api_url`: where the CI job says its forge's API is; if None, the repository's address tells.
    `certificates`: authorities by which the CI job trusts its forge."""
    if request.forge is ForgeName.GITHUB:
        return rerunning_for(request, api_url)
    from runner_action.forges.gitlab import DOWNLOADS, GitLab

    return GitLab(request.repository, request.token, api_url, request.ca_certificates or certificates, request.runner_downloads or DOWNLOADS)


def rerunning_for(request: LaunchRequest | RestartRequest, api_url: str | None = None) -> Rerunning:
    """The same for `restart`, after `refusals` had nothing to say."""
    from runner_action.forges.github import GitHub

    return GitHub(request.repository, request.token, api_url)
