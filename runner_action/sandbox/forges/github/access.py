"""Which tokens may manage whose runners on GitHub."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import request

from runner_action.sandbox.forges.github.answers import refused
from runner_action.sandbox.forges.github.app import FakeApp

SCOPES = {"repos": "repo", "orgs": "admin:org", "enterprises": "manage_runners:enterprise"}
"""The scope that a classic token needs, by the owner of the runners."""


def refusal(kind: str, root: str, app: FakeApp, known: Collection[str]) -> Any:
    """The refusal for a token of this `kind` and the runners of `root`, such as `orgs/octo`; None
    if it is allowed. `known`: the roots that exist."""
    # According to their page these calls accept classic tokens only.
    if kind in ("readonly", "app") and root.startswith("enterprises/"):
        return refused(
            403,
            "Resource not accessible by"
            f" {'integration' if kind == 'app' else 'personal access token'}",
        )
    if kind == "app" and app.suspended:
        return refused(403, "This installation has been suspended")
    if kind == "readonly" and request.method != "GET":
        return refused(
            403,
            "Resource not accessible by personal access token",
            {"X-Accepted-GitHub-Permissions": "administration=write"},
        )
    if kind == "app" and (lacking := app.lacking()):
        return refused(
            403,
            "Resource not accessible by integration",
            {"X-Accepted-GitHub-Permissions": lacking},
        )
    if kind == "job" or (kind == "actions" and "/actions/runners" in request.path):
        return refused(
            403,
            "Resource not accessible by integration",
            {"X-Accepted-GitHub-Permissions": "administration=read"},
        )
    needed = SCOPES[root.partition("/")[0]]
    scopes = kind.removeprefix("scopes:")
    if kind.startswith("scopes:") and needed not in scopes.split(","):
        return refused(
            404, "Not Found", {"X-OAuth-Scopes": scopes, "X-Accepted-OAuth-Scopes": needed}
        )
    return None if root in known else refused(404, "Not Found")
