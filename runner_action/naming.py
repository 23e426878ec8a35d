"""The names of launches, which those of their runners begin with. Pure."""

from __future__ import annotations

import hashlib
import re

from runner_action.model import Run

NAME_LENGTH = 50
"""Most characters of a launch's name, so that every cloud allows the names derived from it."""
KEY_PART = 8
"""Hexadecimal digits that make a requested name unique."""
DIGEST_PART = 4
"""Hexadecimal digits of the digest of a requested name that is too long."""
LOCAL_LENGTH = 64
"""Most characters of a runner's name on GitHub."""


def beginning_of(name: str) -> str:
    """What of a requested name begins the names of its launches, to which a part that is unique to
    the launch is added. As CML did: in lower case, a hyphen for anything but letters and digits,
    and cut. A part of a digest tells apart long names that begin alike, such as those of
    branches."""
    words = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if not words[:1].isalpha():
        words = f"cml-{words}"
    room = NAME_LENGTH - KEY_PART - 1
    if len(words) <= room:
        return words
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_PART]
    return f"{words[: room - DIGEST_PART - 1].rstrip('-')}-{digest}"


def local_name(name: str) -> str:
    """The name of this machine as a runner: the requested one, as far as GitHub, GitLab and a
    folder of that name allow."""
    return re.sub("[^A-Za-z0-9._-]+", "-", name)[:LOCAL_LENGTH].strip("-.")


def base_name(requested: str | None, run: Run) -> str:
    """The name of a launch on a cloud: unique, even if another launch requests the same name."""
    return f"{beginning_of(requested)}-{run.key[:KEY_PART]}" if requested else run.derived_name


def is_requested_as(requested: str, name: str) -> bool:
    """Whether `base_name` can have made this name of the requested one."""
    part = name.removeprefix(f"{beginning_of(requested)}-")
    return part != name and bool(re.fullmatch(f"[0-9a-f]{{{KEY_PART}}}", part))


def names(base: str, count: int) -> tuple[str, ...]:
    """Names of the runners of one launch: `base`, with a number if there are several runners."""
    if count == 1:
        return (base,)
    return tuple(f"{base}-{number}" for number in range(1, count + 1))
