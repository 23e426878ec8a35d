"""The list of forges. Each function here chooses between GitHub and GitLab, and nothing else does.
The client library of a forge is loaded only when that forge is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, assert_never

from runner_action import guarding
from runner_action.errors import ForgeError, InputError
from runner_action.forges.base import Forge, Rerunning
from runner_action.forges.github import expected as github_expected
from runner_action.forges.github import facts as github_facts
from runner_action.forges.github import permissions as github_permissions
from runner_action.forges.github import refusals as github_refusals
from runner_action.forges.github.job import GitHubJob
from runner_action.forges.gitlab import expected as gitlab_expected
from runner_action.forges.gitlab import facts as gitlab_facts
from runner_action.forges.gitlab import permissions as gitlab_permissions
from runner_action.forges.gitlab import programs
from runner_action.forges.gitlab import refusals as gitlab_refusals
from runner_action.forges.gitlab import warnings as gitlab_warnings
from runner_action.forges.gitlab.job import GitLabJob
from runner_action.forges.jobs import JobEnvironment
from runner_action.forges.traits import Traits
from runner_action.loading import ALONE
from runner_action.model import Download, ForgeName, Registration, Repository, Secret
from runner_action.request import LaunchRequest, RestartRequest

USUAL = ForgeName.GITHUB
"""Where `owner/name` is, unless an input or the CI job says otherwise."""


def traits_of(forge: ForgeName) -> Traits:
    match forge:
        case ForgeName.GITHUB:
            return github_facts.TRAITS
        case ForgeName.GITLAB:
            return gitlab_facts.TRAITS
        case _ as unknown:
            assert_never(unknown)


def job_environment(forge: ForgeName, environ: Mapping[str, str]) -> JobEnvironment:
    match forge:
        case ForgeName.GITHUB:
            return GitHubJob(environ)
        case ForgeName.GITLAB:
            return GitLabJob(environ)
        case _ as unknown:
            assert_never(unknown)


def job_environments(environ: Mapping[str, str]) -> list[JobEnvironment]:
    """The same environment, read as each forge's CI would read it."""
    return [job_environment(forge, environ) for forge in ForgeName]


def policy_for(forge: ForgeName, repository: Repository | None, restart: bool) -> str:
    """What tokens need for runners of `repository`, or of any if that is None. `restart`: whether
    machines may restart runs. Markdown. Raises InputError for an address without runners."""
    match forge:
        case ForgeName.GITHUB:
            return github_permissions.policy_for(repository, restart)
        case ForgeName.GITLAB:
            return gitlab_permissions.policy_for(repository, restart)
        case _ as unknown:
            assert_never(unknown)


def expected_registration(
    request: LaunchRequest, architecture: str
) -> tuple[Download, Registration]:
    """Placeholders for what registering a runner will return: random, and of the usual length, so
    that the size of the user data is known before any call."""
    match request.forge:
        case ForgeName.GITHUB:
            return github_expected.expected(request, architecture)
        case ForgeName.GITLAB:
            return gitlab_expected.expected(architecture)
        case _ as unknown:
            assert_never(unknown)


def warnings(
    forge: ForgeName, values: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[str]:
    """Warnings for a launch, from its inputs and the job's environment."""
    match forge:
        case ForgeName.GITHUB:
            return
        case ForgeName.GITLAB:
            yield from gitlab_warnings.useless_labels(values, environ)
            yield from gitlab_warnings.unprotected(values, environ)
        case _ as unknown:
            assert_never(unknown)


def refusals(request: LaunchRequest | RestartRequest) -> Iterator[str]:
    """Why the request's forge cannot serve it. Loads no client library."""
    match request.forge:
        case ForgeName.GITHUB:
            yield from github_refusals.refusals(request)
        case ForgeName.GITLAB:
            yield from gitlab_refusals.refusals(request)
        case _ as unknown:
            assert_never(unknown)


def withheld(environ: Mapping[str, str]) -> str:
    """Why variables of the CI may be missing in this job, as a clause; empty if nothing is
    known."""
    clauses = (job.withheld() for job in job_environments(environ))
    return next(filter(None, clauses), "")


def configured(forge: ForgeName, environ: Mapping[str, str]) -> AbstractContextManager[None]:
    """Around whatever the forge's client library does."""
    return guarding.configured(traits_of(forge).title, (), environ, ForgeError)


def forge_for(
    request: LaunchRequest,
    api_url: str | None = None,
    certificates: str | None = None,
    until: float | None = None,
) -> Forge:
    """The request's forge. `api_url`: where the CI job says the API is; None: derived from the
    repository's address. `certificates`: authorities (PEM) by which the CI job trusts its forge.
    `until`: when the launch gives up, by the system's monotonic clock.
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
                request.access_level,
            )
        case _ as unknown:
            assert_never(unknown)


def rerunning_for(request: RestartRequest, api_url: str | None = None) -> Rerunning:
    """The same for `restart`. Call `refusals` first."""
    match request.forge:
        case ForgeName.GITHUB:
            from runner_action.forges.github.client import GitHub

            certificates = request.ca_certificates
            return GitHub(request.repository, request.token, api_url, certificates)
        case ForgeName.GITLAB:
            raise InputError(list(refusals(request)))
        case _ as unknown:
            assert_never(unknown)
