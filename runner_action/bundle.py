"""The agent as a file of its own, for machines whose user data has no room for it: what a
release publishes, and its digest.

The same bytes on every machine, whatever made them: plain source, in JSON, in the order of its
names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

AGENT = Path(__file__).parent / "agent"


@dataclass(frozen=True)
class Bundle:
    """`sha256`: in hexadecimal, of the content; its name begins with it, so that no mirror can
    mix up two."""

    content: bytes
    sha256: str

    @property
    def name(self) -> str:
        return f"cml-runner-agent-{self.sha256[:16]}.json"

    def url(self, downloads: str) -> str:
        """Where it is, in a folder of downloads."""
        return f"{downloads.rstrip('/')}/{self.name}"


@cache
def bundle() -> Bundle:
    """All modules of the agent, of all clouds, GitHub and GitLab."""
    files = {file.name: file.read_text("utf-8") for file in AGENT.glob("*.py")}
    content = json.dumps(files, sort_keys=True).encode()
    return Bundle(content, hashlib.sha256(content).hexdigest())
