"""Whose code a GitHub job is about to run: the repository's own, or that of someone who may not
write to it. Pure.

How each event is judged
(https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows):

pull_request*, workflow_run     by the repositories that they name; refused if they name none
issue_comment                   by the comment's author, if it is on a pull request: such a workflow
                                checks out the code that the comment is about
merge_group                     accepted: the code was queued by someone who may write
check_run, check_suite, status  accepted: the default branch's code
repository_dispatch, push, …    accepted: started by someone who may write
discussion, issues, fork, …     accepted, though anyone can start them: the default branch's code
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAY_WRITE = ("OWNER", "MEMBER", "COLLABORATOR")
"""Values of `author_association` for people who may write.
https://docs.github.com/en/graphql/reference/enums#commentauthorassociation"""


def event_of(text: str | None) -> Mapping[str, Any]:
    """Parses the text of the event file; empty if it holds no event.
    https://docs.github.com/en/webhooks/webhook-events-and-payloads"""
    try:
        event = json.loads(text or "{}")
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def is_public(event: Mapping[str, Any]) -> bool:
    """Whether anyone may fork the event's repository."""
    return _part(event, "repository").get("private") is False


def fork_of_run(run: Mapping[str, Any]) -> str | None:
    """Whose code a workflow run runs, in words, if it is not the repository's own. `run`: as the
    API or an event describes it.
    https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run"""
    return _between(run.get("head_repository"), run.get("repository"))


def stranger(name: str, event: Mapping[str, Any]) -> str | None:
    """Who started a job, in words, if they may not write to the repository. `name`: the
    event's."""
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
    """A deleted fork is null. If neither repository is named, the head may be a fork."""
    head = head if isinstance(head, dict) else {}
    base = base if isinstance(base, dict) else {}
    if head.get("id") is not None and head.get("id") == base.get("id"):
        return None
    missing = "was deleted" if base else "the event does not name"
    source = str(head.get("full_name") or f"a repository that {missing}")
    return f"{source}, a fork of {base['full_name']}" if base.get("full_name") else source


def _author(comment: Mapping[str, Any]) -> str | None:
    """`author_association` describes the author, even if someone else has edited the comment."""
    if comment.get("author_association") in MAY_WRITE:
        return None
    login = _part(comment, "user").get("login") or "someone"
    return f"{login}, who may not write to this repository"


def _part(whole: object, name: str) -> Mapping[str, Any]:
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, dict) else {}
