"""The runner programs that a container image holds. The machines of a cloud do not get this
module."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .spec import AgentSpec

KEPT = Path("/opt/cml-runner")
"""Where our container image keeps them (image/programs.py)."""


def source(spec: AgentSpec, kept: Path = KEPT) -> str:
    """The URL of the archive: a file:// URL if the image already holds the same one."""
    file = kept / spec.runner_url.rsplit("/", 1)[-1]
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == spec.runner_sha256:
        return file.as_uri()
    return spec.runner_url
