"""The list of forges. A client library is loaded only when its forge is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from runner_action.errors import InputError
from runner_action.forges.base import Forge, Rerunning
from runner_action.forges.github import levels
from runner_action.forges.github.permissions import APPS_NOT_HERE, text
from runner_action.forges.gitlab import programs
from runner_action.loading import ALONE
from runner_action.model import App, ForgeName, Repository, Secret
from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    """Why neither GitHub nor GitLab can serve this request; told before any library is loaded."""
    match request.forge:
        case ForgeName.GITHUB:
            yield from _refusals_of_github(request)
        case ForgeName.GITLAB:
            if isinstance(request, RestartRequest):
                yield (
                    "command restart: GitLab starts nothing when a pipeline ends; its machines"
                    " restart jobs themselves, with `restart-token`"
                )
        case _ as unknown:
            assert_never(unknown)


def _refusals_of_github(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    yield from levels.misread(request.repository)
    level = levels.level_of(request.repository)
    if level is levels.Level.ENTERPRISE and isinstance(request.token, App):
        yield f"app-id: {APPS_NOT_HERE}; give one as `token`, or launch for an organisation"
    if isinstance(request, RestartRequest):
        if level is not levels.Level.REPOSITORY:
            yield (
                f"command restart: a run belongs to a repository, and {request.repository.url} is"
                f" an {level}; write `repo` as `owner/name`"
            )
        return
    if request.runner_group and level is levels.Level.REPOSITORY:
        yield (
            f"runner-group {request.runner_group}: a repository has no runner groups; leave it out,"
            " or write the organisation's address as `repo`"
        )
    pinned = (
        tuple(int(part) for part in request.runner_version.split("."))
        if request.runner_version != "latest"
        else OLDEST
    )
    if pinned < OLDEST and levels.in_the_cloud(request.repository):
        oldest = ".".join(map(str, OLDEST))
        yield (
            f"runner-version {request.runner_version}: GitHub registers no runner before {oldest};"
            " leave it out, or write a newer one"
        )


OLDEST = (2, 329, 0)
"""Since 2026 (github.blog/changelog, minimum version enforcement for self-hosted runners). An
Enterprise Server has its own."""


EXAMPLES = (
    "https://github.com/OWNER/NAME",
    "https://github.com/ORGANISATION",
    "https://github.com/enterprises/ENTERPRISE",
)


def policy_for(repository: Repository | None, restart: bool) -> str:
    """What `token` needs at GitHub for runners there, or, if that is not said, at each level;
    and, with `restart`, what `restart-token` does. Raises InputError for what is no place of
    GitHub's."""
    places = [repository] if repository else [Repository(url=url) for url in EXAMPLES]
    if problems := [problem for place in places for problem in levels.misread(place)]:
        raise InputError(problems)
    return "\n".join(
        text(place, kept) for place in places for kept in ((False, True) if restart else (False,))
    )


def forge_for(
    request: LaunchRequest,
    api_url: str | None = None,
    certificates: str | None = None,
    until: float | None = None,
) -> Forge:
    """The forge of the request. `api_url`: where the CI job says its forge's API is; if None,
    the repository's address tells. `certificates`: authorities by which the CI job trusts its
    forge; `until`: when, by the system's clock, nobody waits any more.
    """
    match request.forge:
        case ForgeName.GITHUB:
            with ALONE:
                from runner_action.forges.github.client import GitHub, Joining, Patience

            joining = Joining(request.runner_group, request.default_labels)
            return GitHub(
                request.repository,
                request.token,
                api_url,
                request.ca_certificates,
                joining,
                Patience(until=until),
            )
        case ForgeName.GITLAB:
            with ALONE:
                from runner_action.forges.gitlab.client import GitLab

            assert isinstance(request.token, Secret)
            return GitLab(
                request.repository,
                request.token,
                api_url,
                request.ca_certificates or certificates,
                request.runner_downloads or programs.DOWNLOADS,
            )
        case _ as unknown:
            assert_never(unknown)


def rerunning_for(request: RestartRequest, api_url: str | None = None) -> Rerunning:
    """The same for `restart`, after `refusals` had nothing to say."""
    match request.forge:
        case ForgeName.GITHUB:
            from runner_action.forges.github.client import GitHub

            certificates = request.ca_certificates
            return GitHub(request.repository, request.token, api_url, certificates)
        case ForgeName.GITLAB:
            raise InputError(list(refusals(request)))
        case _ as unknown:
            assert_never(unknown)
