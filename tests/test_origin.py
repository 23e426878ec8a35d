"""Whose code a job is for, by each event that GitHub starts a workflow with, and each half of
what it may tell."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from runner_action.files import ReadFile
from runner_action.forges import job_environments
from runner_action.forges.github.origin import MAY_WRITE, fork_of_run

OURS, THEIRS = {"id": 1, "full_name": "octo/train"}, {"id": 2, "full_name": "mallory/train"}
PULLS = (
    "pull_request",
    "pull_request_target",
    "pull_request_review",
    "pull_request_review_comment",
)
"""https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows"""
STRANGERS = ("CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR", "MANNEQUIN", "NONE", None)
Json = dict[str, Any]


def fork_of(environ: dict[str, str], read_file: ReadFile) -> str | None:
    strangers = [job.stranger(read_file) for job in job_environments(environ)]
    return next(filter(None, strangers), None)


def is_public(environ: dict[str, str], read_file: ReadFile) -> bool:
    return any(job.is_public(read_file) for job in job_environments(environ))


def told(name: str, event: object, **environ: str) -> str | None:
    """`event`: None for no file, a text for one that is broken."""
    text = event if isinstance(event, str) or event is None else json.dumps(event)
    given = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_NAME": name,
        "GITHUB_EVENT_PATH": "/event.json",
    }
    return fork_of({**given, **environ}, {"/event.json": text}.get)


def pull(head: object, base: object = OURS) -> Json:
    return {"pull_request": {"head": {"repo": head}, "base": {"repo": base}}, "repository": OURS}


@pytest.mark.parametrize(
    "event", [{}, {"repository": None}, {"repository": {}}, {"repository": {"private": True}}]
)
def test_what_does_not_say_that_it_is_public_is_not(event: Json) -> None:
    environ = {"GITHUB_EVENT_PATH": "/event.json"}
    assert not is_public(environ, {"/event.json": json.dumps(event)}.get)
    assert not is_public({}, lambda _: None)
    public = json.dumps({"repository": {"private": False}})
    assert is_public(environ, {"/event.json": public}.get)


def run(head: object, base: object = OURS) -> Json:
    return {"workflow_run": {"head_repository": head, "repository": base}, "repository": OURS}


@pytest.mark.parametrize("name", PULLS)
def test_a_pull_request_is_of_the_repository_that_it_names(name: str) -> None:
    assert told(name, pull(OURS)) is None
    assert told(name, pull(THEIRS)) == "mallory/train, a fork of octo/train"
    assert told(name, pull(None)) == "a repository that was deleted, a fork of octo/train"


def test_a_run_is_of_the_repository_that_it_names() -> None:
    assert told("workflow_run", run(OURS)) is None
    assert told("workflow_run", run(THEIRS)) == "mallory/train, a fork of octo/train"
    assert fork_of_run({"head_repository": OURS, "repository": OURS}) is None
    assert fork_of_run({"head_repository": THEIRS, "repository": OURS})


ODD: list[Any] = [None, {}, [], "x"]
ENDS: list[Any] = [None, {}, OURS, {"repo": {}}]
PAIRS: list[Any] = [(OURS, None), ({}, {}), ({"id": None}, {"id": None}), (THEIRS, {})]
HALVES: list[Any] = [
    *(None, "", "{", "[]", "null", "7", {}, {"repository": OURS}),
    *({key: value} for key in ("pull_request", "workflow_run") for value in ODD),
    *({"pull_request": {"head": head, "base": base}} for head, base in product(ENDS, repeat=2)),
    *({"workflow_run": {"head_repository": head}} for head in ENDS),
    *(pull(head, base) for head, base in PAIRS),
]


@pytest.mark.parametrize("event", HALVES, ids=json.dumps)
@pytest.mark.parametrize("name", [*PULLS, "workflow_run"])
def test_what_does_not_say_whose_it_is_is_nobodys(name: str, event: object) -> None:
    assert told(name, event)


@pytest.mark.parametrize("association", [*MAY_WRITE, *STRANGERS])
def test_a_comment_on_a_pull_request_counts_by_who_wrote_it(association: str | None) -> None:
    said = {"comment": {"author_association": association, "user": {"login": "mallory"}}}
    on_pull = {"issue": {"pull_request": {"url": "x"}}, **said}
    expected = None if association in MAY_WRITE else "mallory, who may not write to this repository"
    assert told("issue_comment", on_pull) == expected
    assert told("issue_comment", {"issue": {"title": "x"}, **said}) is None


@pytest.mark.parametrize(
    "event", [None, "{", {}, {"comment": {}}, {"issue": {"pull_request": {}}}], ids=json.dumps
)
def test_a_comment_that_does_not_say_what_it_is_on_is_a_strangers(event: object) -> None:
    assert told("issue_comment", event) == "someone, who may not write to this repository"


FINE = {
    "push": {"repository": OURS},
    "schedule": {"schedule": "1 * * * *"},
    "workflow_dispatch": {"inputs": {"pr": "7"}},
    "repository_dispatch": {"client_payload": {"pr": 7}},
    "merge_group": {"merge_group": {"head_ref": "gh-readonly-queue/main/pr-7"}},
    "check_suite": {"check_suite": {"head_branch": "x", "pull_requests": []}},
    "check_run": {"check_run": {"pull_requests": []}},
    "issues": {"issue": {"title": "x", "author_association": "NONE"}},
    "discussion": {"discussion": {}},
    "discussion_comment": {"discussion": {}, "comment": {"author_association": "NONE"}},
    "fork": {"forkee": THEIRS},
}


@pytest.mark.parametrize("name", FINE)
def test_other_events_are_about_code_of_who_may_write(name: str) -> None:
    assert told(name, FINE[name]) is None
    assert told(name, None) is None


def test_the_name_alone_is_enough() -> None:
    """As in a container that was given no more of the job's environment."""
    assert told("pull_request_target", pull(THEIRS), GITHUB_ACTIONS="")
    assert fork_of({"REPO_TOKEN": "x"}, lambda _: None) is None
