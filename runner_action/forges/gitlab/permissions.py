"""The permissions that a token needs at GitLab, and what it gives access to. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from runner_action.model import Repository

NEEDED = ("create_runner", "manage_runner", "read_api")
FINE_GRAINED = "granular"
"""The only scope of a fine-grained token, whose permissions are elsewhere and which only GitLab can
judge. https://docs.gitlab.com/auth/tokens/fine_grained_access_tokens/"""
NARROW = (17, 1)
"""The first GitLab that has all of these scopes: `manage_runner` was the last.
https://docs.gitlab.com/user/profile/personal_access_tokens/#personal-access-token-scopes"""
GROUP_BOT = re.compile(r"group_\d+_bot")
"""The user of a group's token. A project's token gives access to that project only.
https://docs.gitlab.com/user/group/settings/group_access_tokens/#bot-users-for-groups"""
OF_A_GROUP = (
    "a group's token: it gives access to every project of the group; a project's token, to that"
    " project only"
)
HINT = (
    "It needs scope `api`, or, since GitLab 17.1, `create_runner`, `manage_runner` and `read_api`"
    " together (and `api` to restart jobs), of a Maintainer of the project or Owner of the group. A"
    " job's own CI_JOB_TOKEN can never create runners: put a personal, project or group access"
    " token into the masked variable REPO_TOKEN. `cml-runner permissions gitlab` prints all"
    " details."
)
EXAMPLE = "https://gitlab.com/GROUP/PROJECT"
"""Used when no repository is given."""


def has_api(scopes: Collection[str]) -> bool:
    """Whether a token with these scopes has, or may have, all permissions of its user."""
    return "api" in scopes or FINE_GRAINED in scopes


def missing_for_runners(scopes: Collection[str], version: tuple[int, ...] | None) -> str:
    """The scopes that are missing from these, in words; empty if none is. `api` includes them all.
    A fine-grained token lacks none: GitLab refuses what it may not do.
    `version`: GitLab's major and minor number; None if unknown."""
    if has_api(scopes):
        return ""
    if version is not None and version < NARROW:
        number = ".".join(map(str, version))
        return f"`api`: GitLab {number} has no `manage_runner`, which came with 17.1"
    return ", ".join(f"`{scope}`" for scope in NEEDED if scope not in scopes)


def opens(user: Mapping[str, Any]) -> str | None:
    """What a token gives access to besides one project, in words that follow "it is". `user`: the
    response to `GET /user`."""
    if not user.get("bot"):
        return "a personal token: it gives access to everything that its owner may see and change"
    return OF_A_GROUP if GROUP_BOT.match(user["username"]) else None


def policy_for(repository: Repository | None, restart: bool) -> str:
    """What `token` needs for runners of a project or group, and, with `restart`, what
    `restart-token` needs; with the page where each is created. Markdown.

    https://docs.gitlab.com/user/profile/personal_access_tokens/#prefill-personal-access-token-details
    """
    place = repository or Repository(url=EXAMPLE)
    purpose = "`token`, to launch runners (before GitLab 17.1 with scope `api`)"
    parts = [_kinds(place, purpose, NEEDED)]
    if restart:
        purpose = "`restart-token`, only if machines restart interrupted jobs"
        parts.append(_kinds(place, purpose, ("api",)))
    return "\n".join(parts)


def _kinds(place: Repository, purpose: str, scopes: Collection[str]) -> str:
    form = urlencode({"name": "cml-runner", "scopes": ",".join(scopes)}, safe=",")
    listed = ", ".join(scopes)
    return "\n".join(
        [
            f"{purpose}; one of:",
            "",
            f"- project access token, role Maintainer: scopes {listed}",
            f"  {place.url}/-/settings/access_tokens?{form}",
            f"- group access token, role Owner, for a group's runners: scopes {listed}",
            f"  {place.server}/groups/{place.path}/-/settings/access_tokens?{form}",
            f"- personal access token of the project's Maintainer or the group's Owner: {listed}",
            f"  {place.server}/-/user_settings/personal_access_tokens?{form}",
            "",
        ]
    )
