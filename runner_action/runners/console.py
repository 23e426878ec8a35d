"""Reads what a machine printed on its console: the agent's stages, and the reason of a failure.
Pure."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner_action.agent.reasons import Reason

_LINE = re.compile(r"cml-runner: (\{.*\})")
ENDED_BEFORE_ONLINE = ("failed", "watchdog", "end")


def entries(text: str) -> Iterator[Mapping[str, Any]]:
    """What the agent logged to a console, in order; skips lines of others, and cut ones."""
    for match in _LINE.finditer(text):
        try:
            yield json.loads(match[1])
        except ValueError:
            continue


def failure(text: str) -> str | None:
    """Why the machine will not become a runner; None if its console has no such entry."""
    ended = (entry for entry in entries(text) if entry.get("stage") in ENDED_BEFORE_ONLINE)
    return next((str(entry.get("why", "")) for entry in ended), None)


def was_online(text: str) -> bool:
    """Whether the machine's runner has ever been online, by its own account."""
    return any(entry.get("stage") == "online" for entry in entries(text))


def was_reclaimed(text: str) -> bool:
    """Whether the machine left because its cloud was taking it back, by its own account."""
    left = (entry for entry in entries(text) if entry.get("stage") == "leaving")
    return any(str(entry.get("why", "")).startswith(Reason.TAKEN.text) for entry in left)


@dataclass(frozen=True)
class Equipped:
    """The seconds that a machine took to install packages, and what is missing in spite of that, in
    the words of the package manager."""

    seconds: float
    missing: str


def equipped(text: str) -> Equipped | None:
    """None if the machine has installed nothing, or is not done."""
    for entry in entries(text):
        if entry.get("stage") == "equipped":
            missing = re.sub(r"^exit code \d+: ", "", str(entry.get("why") or ""))
            return Equipped(float(entry.get("seconds", 0)), missing)
    return None


STEPS = {
    "agent-fetch": "while fetching its agent",
    "agent": "after its agent had started",
    "startup-script": "in the startup script",
    "equip": "while installing packages",
    "equipped": "after installing packages",
    "downloaded": "after unpacking the runner program",
    "configured": "after registering",
    "online": "after coming online",
}
WAITS = ("agent-waits", "waiting")
"""What has failed is tried again."""
JOINED = ("configured", "online")


def progress(text: str) -> str:
    """How far a machine came by its console, in words that follow `failed` or `got stuck`, and what
    it has last tried in vain."""
    told = [(str(entry.get("stage")), entry) for entry in entries(text)]
    stages = [stage for stage, _ in told if stage in STEPS]
    if not stages:
        return (
            "before its agent had started" if text else "without any output on its console so far"
        )
    vain = ""
    for stage, entry in told:
        if stage in WAITS:
            vain = f" (last failed attempt: {entry.get('why')})"
        elif stage in JOINED:
            vain = ""
    return STEPS[stages[-1]] + vain


def login(text: str) -> str | None:
    """The user to whom cloud-init gave the SSH key, which it prints on the console
    (cc_ssh_authkey_fingerprints); None if it has not done so yet."""
    match = re.search(r"ci-info: \++Authorized keys from \S+ for user (\S+?)\++", text)
    return match[1] if match else None


def tail(text: str, lines: int = 40) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


SENTENCES = {
    "agent": "Starting runner {name}.",
    "downloaded": "Unpacked the runner program; its checksum is correct.",
    "configured": "Registered.",
    "waiting": "Trying again: {why}.",
    "online": "Online, waiting for jobs. Press Ctrl-C to stop.",
    "job-started": "Job {job} started.",
    "job-finished": "Job {job} finished.",
    "leaving": "Leaving: {why}.",
    "staying": "Staying: {why}.",
    "deregistered": "Deregistered the runner.",
    "end": "Stopped: {why}.",
    "restart": "Restart: {outcome}.",
    "checkpoint": "The checkpoint script has {seconds} s to finish.",
    "checkpoint-done": "The checkpoint script finished ({why}).",
    "interrupted": "Interrupted attempt {attempt} of {run}: {why}.",
}
WARNINGS = {
    "failed": "Failed: {why}.",
    "left": "Could not remove: {why}.",
    "still-registered": "The runner is still registered: {why}.",
}


def sentence(stage: str, facts: Mapping[str, object]) -> tuple[int, str]:
    """An entry of the agent for a person at this machine: log level and text."""
    if stage in WARNINGS:
        return logging.ERROR, WARNINGS[stage].format(**facts)
    if stage in SENTENCES:
        return logging.INFO, SENTENCES[stage].format(**facts)
    return logging.DEBUG, f"{stage}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
