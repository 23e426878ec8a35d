"""What a machine says on its console, read back: the agent's stages and the reason of a failure. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_LINE = re.compile(r"cml-runner: (\{.*\})")
ENDED_BEFORE_ONLINE = ("failed", "watchdog", "end")


def said(text: str) -> Iterator[Mapping[str, Any]]:
    """The agent's lines in a console text, in order; half and foreign lines are passed over."""
    for match in _LINE.finditer(text):
        try:
            yield json.loads(match[1])
        except ValueError:
            continue


def failure(text: str) -> str | None:
    """Why the machine will not become a runner, or None if it has not said so."""
    return next((str(line.get("why", "")) for line in said(text) if line.get("stage") in ENDED_BEFORE_ONLINE), None)


def tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])
