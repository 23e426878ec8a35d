"""The agent as one file, for machines whose user data has no room for it: what a release
publishes, and its digest.

The bytes do not depend on where they are built: plain source in JSON, sorted by file name.
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
    """`sha256`: the digest of `content`, in hexadecimal. The file's name has its first 16 digits,
    so that a mirror can keep several versions."""

    content: bytes
    sha256: str

    @property
    def name(self) -> str:
        return f"cml-runner-agent-{self.sha256[:16]}.json"

    def url(self, downloads: str) -> str:
        """Its URL below the URL of a folder of downloads."""
        return f"{downloads.rstrip('/')}/{self.name}"


@cache
def bundle() -> Bundle:
    """All modules of the agent: for every cloud, for GitHub and for GitLab."""
    files = {file.name: file.read_text("utf-8") for file in AGENT.glob("*.py")}
    content = json.dumps(files, sort_keys=True).encode()
    return Bundle(content, hashlib.sha256(content).hexdigest())
