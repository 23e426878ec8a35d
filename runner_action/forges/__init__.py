"""The list of forges. A client library is loaded only when its forge is asked for."""

from __future__ import annotations

from runner_action.errors import InputError
from runner_action.forges.base import Forge
from runner_action.model import ForgeName, Repository, Secret


def forge_for(name: ForgeName, repository: Repository, token: Secret, api_url: str | None = None, runner_group: str | None = None) -> Forge:
    """The forge of that name. Raises InputError for one that is not there yet.

    `api_url`: where the CI job says its forge's API is; if None, the repository's address tells.
    """
    if runner_group:
        raise InputError([f"runner-group {runner_group}: a repository has no runner groups, and this version works with repositories only; leave it out"])
    if name is ForgeName.GITHUB:
        from runner_action.forges.github import GitHub

        return GitHub(repository, token, api_url)
    raise InputError([f"driver {name}: this version works with github only; {name} is not there yet"])
