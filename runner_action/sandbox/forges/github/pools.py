"""What `config.sh` of actions/runner asks for beside GitHub's API: to be registered, and, of the
service that has runners in pools on servers whose runners are not administered by GitHub's own
API, to be deleted.

TaskAgentHttpClientBase.cs of actions/runner (DeleteAgentAsync); what is wrong is told in the
words of Azure DevOps.
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
    """Status, and why not; empty if the runner is off the list."""
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
    asked: Mapping[str, Any],
    forge: Forge,
    owner: str,
    owner_of: Callable[[str], str],
    groups: Mapping[str, int],
) -> Any:
    """A runner at `owner`, in place of one of the same name if that is asked for, and what it has
    to know; or why not. `owner_of`: the owner of a seat in full; `groups`: their ids, by name."""
    own = [seat for seat in forge.seats() if owner_of(seat.owner) == owner]
    old = next((seat for seat in own if seat.name == asked["name"]), None)
    labels = [*(DEFAULT_LABELS if asked["default_labels"] else ()), *asked["labels"]]
    problems = list(past_limits({"name": asked["name"], "labels": labels}))
    if problems:
        return refused(422, problems[0])
    if old and not asked["replace"]:
        return refused(409, "A runner exists with the same name")
    if asked["group"] not in groups:
        return refused(404, f"Could not find any self-hosted runner group named {asked['group']}.")
    try:
        if old:
            forge.remove(old.id)
    except Refusal as refusal:
        return refused(422, str(refusal))
    seat = forge.seat(
        asked["name"],
        labels,
        ephemeral=asked["ephemeral"],
        owner=owner,
        group=groups[asked["group"]],
    )
    return {"agentId": seat.id, "poolId": seat.group, "secret": seat.secret}


def root_of(address: str) -> str:
    """Of an address as people write it, such as `orgs/octo`."""
    path = address.partition("://")[2].partition("/")[2]
    if path.startswith("enterprises/"):
        return path
    return f"repos/{path}" if "/" in path else f"orgs/{path}"
