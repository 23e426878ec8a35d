"""What a GitHub runner belongs to: a repository, an organisation or an enterprise, derived from the
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
    """From `owner/name`, `owner` or `enterprises/name`. GitHub reserves the name `enterprises`."""
    first, slash, _ = repository.path.partition("/")
    if not slash:
        return Level.ORGANISATION
    return Level.ENTERPRISE if first == "enterprises" else Level.REPOSITORY


def root_of(repository: Repository) -> str:
    """The beginning of the path of every call about it."""
    beginnings = {Level.REPOSITORY: "/repos/", Level.ORGANISATION: "/orgs/", Level.ENTERPRISE: "/"}
    return beginnings[level_of(repository)] + repository.path


def api_url_of(repository: Repository) -> str:
    """github.com and ghe.com serve the API on a host of its own, an Enterprise Server below a
    path."""
    host = urlsplit(repository.url).netloc
    if host == "github.com":
        return "https://api.github.com"
    return f"https://api.{host}" if in_the_cloud(repository) else f"{repository.server}/api/v3"


def in_the_cloud(repository: Repository) -> bool:
    """Whether GitHub itself runs the server, and so requires recent runners."""
    host = urlsplit(repository.url).netloc
    return host == "github.com" or host.endswith(".ghe.com")


def beyond(scopes: Collection[str]) -> str:
    """What a classic token with these scopes gives access to, in words that follow "it is".
    https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/managing-your-personal-access-tokens"""
    spelled = ", ".join(f"`{scope}`" for scope in scopes)
    if any(scope.endswith(":enterprise") for scope in scopes):
        reach = "every enterprise that its owner manages"
    elif "admin:org" in scopes or "write:org" in scopes:
        reach = "every organisation that its owner manages"
    else:
        reach = "every repository that its owner may write to"
    return (
        f"a classic token with {spelled}: it gives access to {reach}; a fine-grained token gives"
        " access to one only"
    )


def misread(repository: Repository) -> Iterator[str]:
    """Why an address is not that of a place with runners."""
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
        yield (
            f"repo {repository.url} is not a repository, organisation or enterprise; write {known}"
        )
