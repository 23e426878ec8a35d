"""Whose code a CI job is about to run: that of the repository itself, or of somebody who may not
write to it. Pure.

What GitHub's events are taken for
(https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows):

pull_request*, workflow_run     by the repositories that they name; what names none is refused
issue_comment                   on a pull request by its author: such a workflow takes up the code
                                that the comment is about, when a stranger says so
merge_group                     fine: who may write has put the code into the queue
check_run, check_suite, status  fine: the default branch's code
repository_dispatch, push, …    fine: started by who may write
discussion, issues, fork, …     fine, though anybody can start them: the default branch's code
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

MAY_WRITE = ("OWNER", "MEMBER", "COLLABORATOR")
"""Who is not a stranger, by `author_association`.
https://docs.github.com/en/graphql/reference/enums#commentauthorassociation"""


def fork_of(environ: Mapping[str, str], read_file: Callable[[str], str | None]) -> str | None:
    """Whose request this job is for, in words, if that is nobody who may write here; None for
    code of the repository itself.

    https://docs.github.com/en/webhooks/webhook-events-and-payloads and
    https://docs.gitlab.com/ci/variables/predefined_variables/#predefined-variables-for-merge-request-pipelines
    """
    if environ.get("GITHUB_ACTIONS") or environ.get("GITHUB_EVENT_NAME"):
        name = environ.get("GITHUB_EVENT_NAME", "")
        return _stranger_on_github(name, _event(read_file(environ.get("GITHUB_EVENT_PATH", ""))))
    source, target = (
        environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID"),
        environ.get("CI_MERGE_REQUEST_PROJECT_ID"),
    )
    if not (source and target) or source == target:
        return None
    fork, ours = (
        environ.get(f"CI_MERGE_REQUEST_{part}PROJECT_PATH", "another project")
        for part in ("SOURCE_", "")
    )
    return f"{fork}, a fork of {ours}"


def is_public(environ: Mapping[str, str], read_file: Callable[[str], str | None]) -> bool:
    """Whether this job is one of a GitHub repository that anybody may fork, as its event tells.
    https://docs.github.com/en/webhooks/webhook-events-and-payloads"""
    event = _event(read_file(environ.get("GITHUB_EVENT_PATH", "")))
    return _part(event, "repository").get("private") is False


def fork_of_run(run: Mapping[str, Any]) -> str | None:
    """The same for a workflow run, as the API or an event tells of it: its code is of
    `head_repository`. https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run"""
    return _between(run.get("head_repository"), run.get("repository"))


def _event(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _stranger_on_github(name: str, event: Mapping[str, Any]) -> str | None:
    if name.startswith("pull_request") or "pull_request" in event:
        pull = _part(event, "pull_request")
        return _between(*(_part(_part(pull, side), "repo") for side in ("head", "base")))
    if name == "workflow_run" or "workflow_run" in event:
        return fork_of_run(_part(event, "workflow_run"))
    if name == "issue_comment" or ("comment" in event and "discussion" not in event):
        on_an_issue = "issue" in event and "pull_request" not in _part(event, "issue")
        return None if on_an_issue else _speaker(_part(event, "comment"))
    return None


def _between(head: object, base: object) -> str | None:
    """A fork that was deleted is null; where neither is told, nobody can say that it is no fork."""
    head, base = (one if isinstance(one, dict) else {} for one in (head, base))
    if head.get("id") is not None and head.get("id") == base.get("id"):
        return None
    unknown = (
        "a repository that was deleted" if base else "a repository that the event does not name"
    )
    whose = head.get("full_name") or unknown
    return f"{whose}, a fork of {base['full_name']}" if base.get("full_name") else str(whose)


def _speaker(said: Mapping[str, Any]) -> str | None:
    """`author_association` is the author's, whoever has edited it since."""
    if said.get("author_association") in MAY_WRITE:
        return None
    login = _part(said, "user").get("login") or "somebody"
    return f"{login}, who may not write to this repository"


def _part(whole: object, name: str) -> Mapping[str, Any]:
    found = whole.get(name) if isinstance(whole, dict) else None
    return found if isinstance(found, dict) else {}
