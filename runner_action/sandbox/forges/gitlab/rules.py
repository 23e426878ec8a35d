"""What the embedded GitLab refuses, in GitLab's own words: by token, role, version and settings.

https://gitlab.com/gitlab-org/gitlab/-/tree/master: lib/api/api_guard.rb, lib/api/ci/runners.rb,
lib/api/user_runners.rb, app/services/ci/runners/create_runner_service.rb,
app/policies/project_policy.rb and group_policy.rb, app/models/concerns/limitable.rb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Response

Version = tuple[int, ...]
SCOPES_SINCE: Mapping[str, Version] = {"manage_runner": (17, 1)}
"""https://docs.gitlab.com/user/profile/personal_access_tokens/#personal-access-token-scopes"""
CALLS_SINCE: Mapping[str, Version] = {
    "GET /personal_access_tokens/self": (15, 5),
    "POST /user/runners": (16, 0),
}
EXECUTION_SINCE = (18, 0)
"""When the list of runners began to say which have a job. That is in the description of July 2026;
the exact version was not found."""
GRACEFUL_SINCE = (17, 0)
"""When a running job that is cancelled began to be `canceling` first.
https://docs.gitlab.com/ci/jobs/#job-statuses"""
STATUS_SINCE = (16, 9)
"""When the answers to a job's updates (`PUT /jobs/:id`) began to have the header `Job-Status`."""
REGISTRATION_TOKENS_END = (18, 0)
"""Unless an administrator keeps them: https://docs.gitlab.com/ci/runners/new_creation_workflow/"""
DEVELOPER = 30
MAINTAINER = 40
OWNER = 50
"""https://docs.gitlab.com/api/access_requests/#valid-access-levels"""
NEVER_A_USER = {
    "error": "insufficient_scope",
    "error_description": (
        "The request requires higher privileges than provided by the access token."
    ),
}
GRANULAR = "granular"
"""Among a token's scopes: it is a fine-grained one, and the others stand for its permissions.
https://docs.gitlab.com/auth/tokens/fine_grained_access_tokens/"""
NOT_IN_GRANULAR = {
    "error": "insufficient_granular_scope",
    "error_description": (
        "Access denied: Your Personal Access Token lacks the required permissions."
    ),
}
REVOKED = {
    "error": "invalid_token",
    "error_description": "Token was revoked. You have to re-authorize from the user.",
}
EXPIRED = {
    "error": "invalid_token",
    "error_description": "Token is expired. You can either do re-authorization or token refresh.",
}
MAINTENANCE = {"message": "GitLab Maintenance: system is in maintenance mode"}
WALL = "<html><head><title>403 Forbidden</title></head><body>nginx</body></html>"


def numbers(version: str) -> Version:
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2])


@dataclass
class Rules:
    """The settings of an instance. By token: its end (`revoked`, `expired`), what GitLab says about
    its user's account, the user's role (Owner, unless it is said), and the path of the project or
    group beyond which it sees nothing."""

    ends: dict[str, Mapping[str, str]] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)
    within: dict[str, str] = field(default_factory=dict)
    creation: bool = True
    """Whether users may create runners here."""
    most: int = 1000
    """Runners that a project or group may have."""
    maintenance: bool = False
    wall: bool = False
    """A firewall before it lets no one through."""
    build_timeout: int = 3600
    """Seconds after which a job of the project ends that has no timeout of its own."""

    def role(self, token: str) -> int:
        return self.roles.get(token, OWNER)

    def refuse(self, token: str, method: str, call: str, version: Version) -> Any:
        """The refusal of a call before its scopes are looked at; None if there is none."""
        if self.wall:
            return Response(WALL, 403, content_type="text/html")
        if version < CALLS_SINCE.get(call, (0,)):
            return {"error": "404 Not Found"}, 404
        if self.maintenance and method != "GET":
            return MAINTENANCE, 503
        if token in self.ends:
            return self.ends[token], 401
        if token in self.accounts:
            return {"message": f"403 Forbidden - {self.accounts[token]}"}, 403
        return None

    def refuse_creation(self, token: str, kind: str, there: int) -> Any:
        """The refusal of a new runner. `there`: how many the place has."""
        needed = MAINTAINER if kind == "projects" else OWNER
        if self.role(token) < needed or not self.creation:
            return {"message": "403 Forbidden - Insufficient permissions"}, 403
        if there >= self.most:
            one = kind.removesuffix("s")
            relation = "Runner projects" if kind == "projects" else "Runner namespaces"
            limit = f"Maximum number of ci registered {one} runners ({self.most}) exceeded"
            return {"message": f"400 Bad request - {relation} base {limit}"}, 400
        return None


def held(scopes: Sequence[str], version: Version) -> list[str]:
    """The scopes that a token can have at this version."""
    return [scope for scope in scopes if version >= SCOPES_SINCE.get(scope, (0,))]


def shown(scopes: Sequence[str]) -> dict[str, Any]:
    """A token's scopes as GitLab describes the token."""
    if GRANULAR not in scopes:
        return {"scopes": scopes}
    permissions = [scope for scope in scopes if scope != GRANULAR]
    return {"scopes": [GRANULAR], "granular_scopes": [{"permissions": permissions}]}
