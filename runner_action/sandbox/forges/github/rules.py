"""What GitHub takes in the body of a request about runners, and how it refuses the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import request

NAME_LENGTH = 64
"""Of a runner. https://github.com/actions/runner/pull/1710"""
LABEL_LENGTH = 256
"""Of a label; `config.sh` looks at that too.
https://github.com/actions/runner/blob/main/src/Runner.Listener/Configuration/Validators.cs"""
MOST_LABELS = 100
"""In one request; the least is one. https://docs.github.com/en/rest/actions/self-hosted-runners"""
Keys = tuple[Sequence[str], Sequence[str]]
"""Those that a body must have, and those that it may have."""
JIT: Keys = (("name", "runner_group_id", "labels"), ("work_folder",))
LABELS: Keys = (("labels",), ())


def invalid(body: Any, keys: Keys) -> str:
    """What GitHub would say of it; empty if nothing."""
    given: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    required, optional = keys
    strange = [key for key in given if key not in (*required, *optional)]
    problems = [f'"{key}" is not a permitted key.' for key in strange]
    problems += [f'"{key}" wasn\'t supplied.' for key in required if key not in given]
    return _said([*problems, *past_limits(given)])


def past_limits(given: Mapping[str, Any]) -> Iterable[str]:
    """Of a runner's name and labels, as far as there are any."""
    name = given.get("name", "runner")
    labels = given.get("labels", ["label"])
    if not name or len(name) > NAME_LENGTH:
        yield f"For 'properties/name', 1 to {NAME_LENGTH} characters are allowed, not {len(name)}."
    if not 1 <= len(labels) <= MOST_LABELS:
        yield f"For 'properties/labels', 1 to {MOST_LABELS} items are allowed, not {len(labels)}."
    for label in labels:
        if len(label) > LABEL_LENGTH:
            yield (
                f"For 'properties/labels', {LABEL_LENGTH} characters are allowed, not {len(label)}."
            )


def _said(problems: Sequence[str]) -> str:
    return "Invalid request.\n\n" + "\n".join(problems) if problems else ""


def checked(view: Callable[..., Any], keys: Keys) -> Callable[..., Any]:
    """A view that sees only bodies that are valid."""

    def checking(**given: Any) -> Any:
        if message := invalid(request.get_json(silent=True), keys):
            return {
                "message": message,
                "documentation_url": "https://docs.github.com/rest",
                "status": "422",
            }, 422
        return view(**given)

    return checking
