"""What a machine says on its console, read back: the agent's stages and the reason of a failure.
Pure."""

from __future__ import annotations

import json
import logging
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
    return next(
        (
            str(line.get("why", ""))
            for line in said(text)
            if line.get("stage") in ENDED_BEFORE_ONLINE
        ),
        None,
    )


def was_online(text: str) -> bool:
    """Whether the machine says that it was a runner, be it one still or not."""
    return any(line.get("stage") == "online" for line in said(text))


STEPS = {
    "agent-fetch": "while it fetched its agent",
    "agent": "after its agent had started",
    "startup-script": "in the startup script",
    "downloaded": "after the runner program was unpacked",
    "configured": "after it had registered",
    "online": "after it was online",
}


def progress(text: str) -> str:
    """How far a machine came by its own words, to be put behind `gave up` or `is`."""
    stages = [str(line.get("stage")) for line in said(text) if line.get("stage") in STEPS]
    if stages:
        return STEPS[stages[-1]]
    return "before its agent had started" if text else "without a word on its console so far"


def login(text: str) -> str | None:
    """The user whom cloud-init let in by key, as it says on the console
    (cc_ssh_authkey_fingerprints); None if it has not said so."""
    match = re.search(r"ci-info: \++Authorized keys from \S+ for user (\S+?)\++", text)
    return match[1] if match else None


def tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])


SENTENCES = {
    "agent": "Becoming runner {name}.",
    "downloaded": "The runner program is unpacked, its checksum is right.",
    "configured": "Registered.",
    "online": "Online: waiting for jobs. Ctrl-C leaves.",
    "job-started": "Job {job} begins.",
    "job-finished": "Job {job} is over.",
    "leaving": "Leaving: {why}.",
    "staying": "Staying: {why}.",
    "deregistered": "The runner was removed from the list.",
    "end": "Gone: {why}.",
    "restart": "Restart: {outcome}.",
    "checkpoint": "The checkpoint script has {seconds} s.",
    "checkpoint-done": "The checkpoint script is done ({why}).",
    "interrupted": "Interrupted attempt {attempt} of {run}: {why}.",
}
WARNINGS = {
    "failed": "Failed: {why}.",
    "left": "Left behind, and not to be removed: {why}.",
    "still-registered": "The runner is still registered: {why}.",
}


def sentence(stage: str, facts: Mapping[str, object]) -> tuple[int, str]:
    """What the agent says, for a person in front of this machine: log level and text."""
    if stage in WARNINGS:
        return logging.ERROR, WARNINGS[stage].format(**facts)
    if stage in SENTENCES:
        return logging.INFO, SENTENCES[stage].format(**facts)
    return logging.DEBUG, f"{stage}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
