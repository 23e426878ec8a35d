"""How the embedded GitLab shows runners and lists, and what it refuses in a runner."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response, request

from runner_action.sandbox.forges.jobs import Seat

SHORTEST_JOB = 600
MOST_TAGS = 50
TAG_LENGTH = 255
TEXT_LENGTH = 1024
"""Limits of a runner: its shortest maximum timeout in seconds, its tags, the characters of a tag,
and of its description or note.
https://gitlab.com/gitlab-org/gitlab/-/blob/master/app/models/ci/runner.rb, tag.rb beside it"""
MOST_OF_A_PAGE = 100
"""https://docs.gitlab.com/api/rest/#pagination"""


def status_of(seat: Seat) -> str:
    if seat.online:
        return "online"
    return "offline" if seat.contacted else "never_contacted"


def invalid(body: Mapping[str, Any]) -> dict[str, list[str]]:
    """The errors of GitLab's model of a runner, by attribute."""
    tags = body.get("tag_list", [])
    errors = dict[str, list[str]]()
    if not body.get("run_untagged", True) and not tags:
        errors["tags_list"] = ["can not be empty when runner is not allowed to pick untagged jobs"]
    if len(tags) > MOST_TAGS:
        errors["tags_list"] = [
            f"Too many tags specified. Please limit the number of tags to {MOST_TAGS}"
        ]
    if any(len(tag) > TAG_LENGTH for tag in tags):
        errors["tags"] = [f"is too long (maximum is {TAG_LENGTH} characters)"]
    for text in ("description", "maintenance_note"):
        if len(body.get(text) or "") > TEXT_LENGTH:
            errors[text] = [f"is too long (maximum is {TEXT_LENGTH} characters)"]
    longest = body.get("maximum_timeout")
    if longest is not None and longest < SHORTEST_JOB:
        errors["maximum_timeout"] = ["needs to be at least 10 minutes"]
    return errors


def paged(items: Sequence[object]) -> Response:
    """The requested page. The host in the link is the one that GitLab is configured with, which
    need not be the one in the request."""
    size = min(int(request.args.get("per_page", 20)), MOST_OF_A_PAGE)
    page = int(request.args.get("page", 1))
    shown = json.dumps(items[(page - 1) * size : page * size])
    response = Response(shown, content_type="application/json")
    response.headers["X-Per-Page"] = str(size)
    response.headers["X-Page"] = str(page)
    if page * size < len(items):
        url = f"http://internal.test{request.path}?per_page={size}&page={page + 1}"
        response.headers["X-Next-Page"] = str(page + 1)
        response.headers["Link"] = f'<{url}>; rel="next"'
    return response


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds or time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
