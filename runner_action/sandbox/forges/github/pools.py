"""The calls of `config.sh` of actions/runner that are not in GitHub's API: to register a runner,
and to delete one at the service that has the runners in pools, on servers where GitHub's own API
does not manage them.

TaskAgentHttpClientBase.cs of actions/runner (DeleteAgentAsync). The error messages are those of
Azure DevOps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Request

from runner_action.sandbox.forges.github.answers import refused
from runner_action.sandbox.forges.github.rules import past_limits
from runner_action.sandbox.forges.jobs import DEFAULT_LABELS, Refusal, Seat
from runner_action.sandbox.forges.memory import Forge


def delete(
    request: Request, forge: Forge, owner_of: Callable[[Seat], str], pool: int, runner_id: int
) -> tuple[int, str]:
    """Deletes a runner. Returns the status and the error message, which is empty on success."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    owner = forge.owner_of(token, "pools") if scheme == "Bearer" else None
    if owner is None or "api-version" not in request.args:
        return 401, "TF400813: The user is not authorized to access this resource."
    seat = forge.by_id(runner_id)
    if seat is None or owner_of(seat) != owner or seat.group != pool:
        return 404, f"VS30063: Runner {runner_id} was not found in pool {pool}."
    try:
        forge.remove(runner_id)
    except Refusal:
        return 400, f'Runner "{seat.name}" is running a job and cannot be deleted.'
    return 200, ""


def register(
    body: Mapping[str, Any],
    forge: Forge,
    owner: str,
    owner_of: Callable[[str], str],
    groups: Mapping[str, int],
) -> Any:
    """Registers a runner of `owner`, and replaces one of the same name if `body` says so. Returns
    its ids and its secret, or a refusal. `owner_of`: the full owner of a seat; `groups`: ids of
    the runner groups, by name."""
    own = [seat for seat in forge.seats() if owner_of(seat.owner) == owner]
    old = next((seat for seat in own if seat.name == body["name"]), None)
    labels = [*(DEFAULT_LABELS if body["default_labels"] else ()), *body["labels"]]
    problems = list(past_limits({"name": body["name"], "labels": labels}))
    if problems:
        return refused(422, problems[0])
    if old and not body["replace"]:
        return refused(409, "A runner exists with the same name")
    if body["group"] not in groups:
        return refused(404, f"Could not find any self-hosted runner group named {body['group']}.")
    try:
        if old:
            forge.remove(old.id)
    except Refusal as refusal:
        return refused(422, str(refusal))
    seat = forge.seat(
        body["name"],
        labels,
        ephemeral=body["ephemeral"],
        owner=owner,
        group=groups[body["group"]],
    )
    return {"agentId": seat.id, "poolId": seat.group, "secret": seat.secret}


def root_of(address: str) -> str:
    """The owner in GitHub's API, such as `orgs/octo`, of the URL of a repository, organization or
    enterprise."""
    path = address.partition("://")[2].partition("/")[2]
    if path.startswith("enterprises/"):
        return path
    return f"repos/{path}" if "/" in path else f"orgs/{path}"
