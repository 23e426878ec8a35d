"""What GitLab's refusals mean, and what to do about each. Pure.

The words are those of GitLab's source: https://gitlab.com/gitlab-org/gitlab/-/tree/master, there
lib/api/api_guard.rb, lib/gitlab/auth/user_access_denied_reason.rb,
app/services/ci/runners/create_runner_service.rb, app/models/concerns/limitable.rb and
lib/gitlab/middleware/read_only/controller.rb.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from runner_action.forges.gitlab.permissions import HINT

REPLACE_IT = (
    "Create another token (`cml-runner permissions gitlab` has the pages), and put it into the"
    " variable REPO_TOKEN."
)
LATER = "Launch again when your administrators have ended it."
HEALTH = (
    "If this repeats, look at your instance's health, for gitlab.com at https://status.gitlab.com."
)


class Meaning(NamedTuple):
    """`by_token`: whether another token may help. `sentence` follows GitLab's own words."""

    by_token: bool
    sentence: str
    hint: str


class Refusal(NamedTuple):
    """A response that refuses. `words`: what GitLab says; `of_api`: whether its API says it, or
    something else on the way to it."""

    status: int
    words: str
    of_api: bool = True


NO_API = Meaning(
    False,
    "That is not an answer of GitLab's API: a firewall or a list of allowed addresses before it"
    " refuses this machine.",
    "Allow this machine's address there, or launch from a job inside that network.",
)
READ_ONLY = Meaning(False, "GitLab is in maintenance mode and changes nothing now.", LATER)
INSUFFICIENT = "Insufficient permissions"
"""What GitLab says if a user may not create runners, whatever the reason: `why_not_created`."""
NARROWER = "insufficient_granular_scope"
"""What GitLab says if a fine-grained token lacks a permission, and which (lib/api/api_guard.rb)."""
KINDS: tuple[tuple[int, str, Meaning], ...] = (
    (401, "revoked", Meaning(True, "The token was revoked.", REPLACE_IT)),
    (
        401,
        "expired",
        Meaning(True, "The token has expired, as GitLab's tokens do by a date.", REPLACE_IT),
    ),
    (401, "", Meaning(True, "The token is wrong or expired, or is a job's own.", HINT)),
    (403, "insufficient_scope", Meaning(True, "The token lacks a scope.", HINT)),
    (
        403,
        NARROWER,
        Meaning(
            True,
            "The token is a fine-grained one without that permission.",
            "Add the permission that GitLab names to a new token, or create one with scope `api`.",
        ),
    ),
    (403, "read-only instance", READ_ONLY),
    (503, "maintenance mode", READ_ONLY),
    (
        403,
        "Your account|Your primary email|Your password|Terms of Service|internal users",
        Meaning(
            True,
            "GitLab lets the owner of the token do nothing.",
            "Sign in to GitLab in a browser as that user, or use the token of another.",
        ),
    ),
    (403, INSUFFICIENT, Meaning(True, "", HINT)),
    (
        403,
        "",
        Meaning(
            True,
            "The token lacks a scope, or its owner a role: Maintainer of the project, or Owner of"
            " the group.",
            HINT,
        ),
    ),
    (
        400,
        r"Maximum number of ci registered \w+ runners",
        Meaning(
            False,
            "The project or group has as many runners as GitLab allows. It counts those that were"
            " created or online in the last seven days (before GitLab 17.1, three months).",
            "Delete runners that nothing uses (Settings > CI/CD > Runners; `cml-runner reap`"
            " deletes those that launches left), or have your administrators raise the limit.",
        ),
    ),
)
"""By status and words; the first one that matches counts.
https://docs.gitlab.com/administration/instance_limits/#number-of-registered-runners-per-scope,
https://docs.gitlab.com/administration/maintenance_mode/#rest-api"""
MAINTAINER = 40
"""https://docs.gitlab.com/api/access_requests/#valid-access-levels"""
NOT_SEEN = (
    "Check `repo`, and that the token's owner is a member there: the token of another project or"
    " group sees nothing of this one. A group may also hide from all but some addresses (Settings >"
    " General > Permissions and group features)."
)
"""https://docs.gitlab.com/user/group/access_and_permissions/#restrict-group-access-by-ip-address"""


def refusal(status: int, body: bytes | None, otherwise: str) -> Refusal:
    """`otherwise`: the words, if the body is not of GitLab's API."""
    try:
        content = json.loads(body or b"")
    except ValueError:
        return Refusal(status, otherwise, of_api=False)
    if not isinstance(content, Mapping):
        return Refusal(status, otherwise)
    said = content.get("message") or content.get("error") or otherwise
    more = [content[key] for key in ("error_description", "scope") if content.get(key)]
    return Refusal(status, ": ".join(map(str, [said, *more])))


def meaning(refusal: Refusal) -> Meaning | None:
    """None: nothing is known about it."""
    if refusal.status == 403 and not refusal.of_api:
        return NO_API
    for status, words, what in KINDS:
        if status == refusal.status and re.search(words, refusal.words):
            return what
    return None


def why_not_created(kind: str, fields: Mapping[str, Any]) -> Meaning:
    """Why the user of the token may not create runners, as far as GitLab's description of the
    project or group tells. `kind`: `projects` or `groups`."""
    one, role = ("project", "a Maintainer") if kind == "projects" else ("group", "an Owner")
    level = _level(fields)
    off = (
        f"creating runners is switched off for this {one}, for its group or for the whole instance"
    )
    if level is not None and level >= MAINTAINER:
        sentence = f"The token's owner has the role for it, so {off}."
    elif level is not None:
        sentence = f"The token's owner is less than {role} of the {one}."
    else:
        sentence = f"The token's owner is less than {role} of the {one}, or {off}."
    return Meaning(
        True,
        sentence,
        f"The token needs {role} of the {one}. An administrator switches creation on: Admin >"
        " Settings > CI/CD > Runners, and on the page of the group or project under Admin >"
        " Overview.",
    )


def _level(fields: Mapping[str, Any]) -> int | None:
    """The highest role of the token's user, if GitLab says it: as a member of the project or of
    its group. https://docs.gitlab.com/api/projects/#get-a-single-project"""
    roles = (fields.get("permissions") or {}).values()
    levels = [role["access_level"] for role in roles if role]
    return max(levels, default=None)
