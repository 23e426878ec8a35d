"""What a token must be allowed at GitLab, and what it opens. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

NEEDED = ("create_runner", "manage_runner", "read_api")
GROUP_BOT = re.compile(r"group_\d+_bot")
"""Who a group's token is. A project's opens that project alone.
https://docs.gitlab.com/user/group/settings/group_access_tokens/#bot-users-for-groups"""
OF_A_GROUP = "a group's token: it opens every project of the group; a project's opens only that"
HINT = (
    "It needs scope `api`, or `create_runner`, `manage_runner` and `read_api` together (and `api`"
    " to restart jobs), of somebody who is Maintainer of the project or Owner of the group. A job's"
    " own CI_JOB_TOKEN can never make runners: put a personal, project or group access token into"
    " the masked variable REPO_TOKEN."
)


def missing_for_runners(scopes: Collection[str]) -> list[str]:
    """The scopes that a token with these lacks; `api` stands for them all."""
    return [] if "api" in scopes else [scope for scope in NEEDED if scope not in scopes]


def opens(user: Mapping[str, Any]) -> str | None:
    """What a token opens besides one project, told by whose it is, as `GET /user` answers."""
    if not user.get("bot"):
        return "a personal token: it opens all that its owner may see and change"
    return OF_A_GROUP if GROUP_BOT.match(user["username"]) else None
