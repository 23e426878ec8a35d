"""Whose code a GitHub job is about to run: that of the repository itself, or of somebody who may
not write to it. Pure.

How events are read
(https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows):

pull_request*, workflow_run     by the repositories that they name; refused if they name none
issue_comment                   on a pull request by its author: such a workflow checks out the
                                code that the comment is about, on a stranger's word
merge_group                     accepted: the code was queued by somebody who may write
check_run, check_suite, status  accepted: the default branch's code
repository_dispatch, push, …    accepted: started by somebody who may write
discussion, issues, fork, …     accepted, though anybody can start them: the default branch's code
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAY_WRITE = ("OWNER", "MEMBER", "COLLABORATOR")
"""Who is not a stranger, by `author_association`.
https://docs.github.com/en/graphql/reference/enums#commentauthorassociation"""


def event_of(text: str | None) -> Mapping[str, Any]:
    """The event in a file's text; empty if it holds none.
    https://docs.github.com/en/webhooks/webhook-events-and-payloads"""
    try:
        event = json.loads(text or "{}")
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def is_public(event: Mapping[str, Any]) -> bool:
    """Whether anybody may fork the repository of the event."""
    return _part(event, "repository").get("private") is False


def fork_of_run(run: Mapping[str, Any]) -> str | None:
    """Whose code a workflow run is for, if not the repository's own: that of `head_repository`.
    `run`: as the API or an event describes it.
    https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run"""
    return _between(run.get("head_repository"), run.get("repository"))


def stranger(name: str, event: Mapping[str, Any]) -> str | None:
    """Who asked for a job, in words, if that is nobody who may write to the repository. `name`:
    the event's."""
    if name.startswith("pull_request") or "pull_request" in event:
        pull = _part(event, "pull_request")
        return _between(*(_part(_part(pull, side), "repo") for side in ("head", "base")))
    if name == "workflow_run" or "workflow_run" in event:
        return fork_of_run(_part(event, "workflow_run"))
    if name == "issue_comment" or ("comment" in event and "discussion" not in event):
        on_an_issue = "issue" in event and "pull_request" not in _part(event, "issue")
        return None if on_an_issue else _author(_part(event, "comment"))
    return None


def _between(head: object, base: object) -> str | None:
    """A deleted fork is null. Where neither is named, it may be a fork."""
    head = head if isinstance(head, dict) else {}
    base = base if isinstance(base, dict) else {}
    if head.get("id") is not None and head.get("id") == base.get("id"):
        return None
    unknown = (
        "a repository that was deleted" if base else "a repository that the event does not name"
    )
    whose = head.get("full_name") or unknown
    return f"{whose}, a fork of {base['full_name']}" if base.get("full_name") else str(whose)


def _author(comment: Mapping[str, Any]) -> str | None:
    """`author_association` is the author's, whoever has edited it since."""
    if comment.get("author_association") in MAY_WRITE:
        return None
    login = _part(comment, "user").get("login") or "somebody"
    return f"{login}, who may not write to this repository"


def _part(whole: object, name: str) -> Mapping[str, Any]:
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, dict) else {}
