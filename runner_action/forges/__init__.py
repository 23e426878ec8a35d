"""The list of forges. A client library is loaded only when its forge is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from runner_action.errors import InputError
from runner_action.forges.base import Forge, Rerunning
from runner_action.forges.github import refusals as github_refusals
from runner_action.forges.gitlab import programs
from runner_action.forges.gitlab import refusals as gitlab_refusals
from runner_action.loading import ALONE
from runner_action.model import ForgeName, Secret
from runner_action.request import LaunchRequest, RestartRequest


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    """Why the request's forge cannot serve it; told before any library is loaded."""
    match request.forge:
        case ForgeName.GITHUB:
            yield from github_refusals.refusals(request)
        case ForgeName.GITLAB:
            yield from gitlab_refusals.refusals(request)
        case _ as unknown:
            assert_never(unknown)


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
