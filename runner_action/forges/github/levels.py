"""Where a GitHub runner belongs: to a repository, an organisation or an enterprise, told by the
address of its page. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum
from urllib.parse import urlsplit

from runner_action.model import Repository


class Level(StrEnum):
    REPOSITORY = "repository"
    ORGANISATION = "organisation"
    ENTERPRISE = "enterprise"


def level_of(repository: Repository) -> Level:
    """`owner/name`, `owner`, or `enterprises/name`, where GitHub lets nobody be an owner of that
    name."""
    first, slash, _ = repository.path.partition("/")
    if not slash:
        return Level.ORGANISATION
    return Level.ENTERPRISE if first == "enterprises" else Level.REPOSITORY


def root_of(repository: Repository) -> str:
    """What the path of all calls about it begins with."""
    return {Level.REPOSITORY: "/repos/", Level.ORGANISATION: "/orgs/", Level.ENTERPRISE: "/"}[
        level_of(repository)
    ] + repository.path


def api_url_of(repository: Repository) -> str:
    """github.com and ghe.com have a host of their own for the API; an Enterprise Server has it
    under a path."""
    host = urlsplit(repository.url).netloc
    if host == "github.com":
        return "https://api.github.com"
    return f"https://api.{host}" if in_the_cloud(repository) else f"{repository.server}/api/v3"


def in_the_cloud(repository: Repository) -> bool:
    """Run by GitHub itself, which asks for recent runners."""
    host = urlsplit(repository.url).netloc
    return host == "github.com" or host.endswith(".ghe.com")


def beyond(scopes: Collection[str]) -> str:
    """What a classic token with these scopes opens, whichever repository it was made for.
    https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/managing-your-personal-access-tokens"""
    spelled = ", ".join(f"`{scope}`" for scope in scopes)
    if any(scope.endswith(":enterprise") for scope in scopes):
        opens = "every enterprise that its owner manages"
    elif "admin:org" in scopes or "write:org" in scopes:
        opens = "every organisation that its owner manages"
    else:
        opens = "every repository that its owner may write to"
    return f"a classic token with {spelled}: it opens {opens}; a fine-grained token opens only one"


def misread(repository: Repository) -> Iterator[str]:
    """Why an address is that of nothing with runners."""
    parts = repository.path.split("/")
    known = (
        f"`{repository.server}/owner/name`, `{repository.server}/organisation` or"
        f" `{repository.server}/enterprises/name`"
    )
    if len(parts) == 2 and parts[0] in ("orgs", "organizations"):
        yield (
            f"repo {repository.url} is a page about an organisation; write"
            f" `{repository.server}/{parts[1]}`"
        )
    elif len(parts) > 2 or parts == ["enterprises"] or not parts[0]:
        yield f"repo {repository.url} is no repository, organisation or enterprise; write {known}"
