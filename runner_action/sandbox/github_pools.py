"""The service behind GitHub that has runners in pools, for servers whose runners are not
administered by GitHub's own API.

TaskAgentHttpClientBase.cs of actions/runner (DeleteAgentAsync); what is wrong is told in the
words of Azure DevOps.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Request

from runner_action.sandbox.jobs import Forge, Refusal, Seat


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


def root_of(address: str) -> str:
    """Of an address as people write it, such as `orgs/octo`."""
    path = address.partition("://")[2].partition("/")[2]
    if path.startswith("enterprises/"):
        return path
    return f"repos/{path}" if "/" in path else f"orgs/{path}"
