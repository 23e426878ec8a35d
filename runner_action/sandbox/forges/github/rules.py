"""What GitHub accepts in the body of a request about runners, and how it refuses the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import request

NAME_LENGTH = 64
"""Characters of a runner's name. https://github.com/actions/runner/pull/1710"""
LABEL_LENGTH = 256
"""Characters of a label; `config.sh` checks that as well.
https://github.com/actions/runner/blob/main/src/Runner.Listener/Configuration/Validators.cs"""
MOST_LABELS = 100
"""Labels in one request, of at least one.
https://docs.github.com/en/rest/actions/self-hosted-runners"""
Keys = tuple[Sequence[str], Sequence[str]]
"""The required and the optional keys of a body."""
JIT: Keys = (("name", "runner_group_id", "labels"), ("work_folder",))
LABELS: Keys = (("labels",), ())


def invalid(body: Any, keys: Keys) -> str:
    """GitHub's message about a body; empty if it is valid."""
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    required, optional = keys
    unknown = [key for key in fields if key not in (*required, *optional)]
    problems = [f'"{key}" is not a permitted key.' for key in unknown]
    problems += [f'"{key}" wasn\'t supplied.' for key in required if key not in fields]
    problems += past_limits(fields)
    return "Invalid request.\n\n" + "\n".join(problems) if problems else ""


def past_limits(fields: Mapping[str, Any]) -> Iterable[str]:
    """GitHub's messages about a runner's name and labels, if present, that exceed its limits."""
    name = fields.get("name", "runner")
    labels = fields.get("labels", ["label"])
    if not name or len(name) > NAME_LENGTH:
        yield f"For 'properties/name', 1 to {NAME_LENGTH} characters are allowed, not {len(name)}."
    if not 1 <= len(labels) <= MOST_LABELS:
        yield f"For 'properties/labels', 1 to {MOST_LABELS} items are allowed, not {len(labels)}."
    for label in labels:
        if len(label) > LABEL_LENGTH:
            yield (
                f"For 'properties/labels', {LABEL_LENGTH} characters are allowed, not {len(label)}."
            )


def checked(view: Callable[..., Any], keys: Keys) -> Callable[..., Any]:
    """The view, which is only called if the body is valid."""

    def checking(**arguments: Any) -> Any:
        if message := invalid(request.get_json(silent=True), keys):
            return {
                "message": message,
                "documentation_url": "https://docs.github.com/rest",
                "status": "422",
            }, 422
        return view(**arguments)

    return checking
