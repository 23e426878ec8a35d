"""What stands outside the agent: the heartbeat it leaves, the look a systemd timer takes at it, and the clean-up after it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable, Optional, Tuple

from . import lifecycle
from .github import GONE, GitHub
from .lifecycle import Phase, Policy, State

CLEAN_UP_SECONDS = 30.0
Say = Callable[..., None]


def write_beat(home: Path, state: State, at: float) -> None:
    """Heartbeat file, replaced in one step: the watchdog never reads half of it."""
    fresh = home / "heartbeat.new"
    fresh.write_text(json.dumps({"phase": state.phase.value, "since": state.since, "born": state.born, "at": at}))
    fresh.replace(home / "heartbeat")


def read_beat(home: Path, now: float) -> Tuple[Optional[State], float]:
    """The last heartbeat and its time; without one, None and the time the watchdog first looked."""
    try:
        beat = json.loads((home / "heartbeat").read_text())
        return State(Phase(beat["phase"]), beat["since"], beat["born"]), float(beat["at"])
    except (OSError, ValueError, KeyError):
        pass
    mark = home / "first-look"
    try:
        return None, float(mark.read_text())
    except (OSError, ValueError):
        mark.write_text(str(now))
        return None, now


def watch(home: Path, policy: Policy, forge: Callable[[], GitHub], say: Say, now: float) -> int:
    """One look. 1: the machine must end, and the unit's FailureAction ends it."""
    state, at = read_beat(home, now)
    why = lifecycle.watchdog(state, at, now, policy)
    if why is None:
        return 0
    say("watchdog", why=why)
    clean_up(home, forge, say)
    return 1


def clean_up(home: Path, forge: Callable[[], GitHub], say: Say) -> None:
    """After the agent, however it ended: takes the runner off the list if the agent did not get to it."""
    gone, registered = home / "gone", home / "runner" / ".runner"
    done = gone.exists() and gone.read_text() == GONE
    # A registration that was on its way when the agent left has come through since.
    late = done and registered.exists() and registered.stat().st_mtime > gone.stat().st_mtime
    if done and not late:
        return
    member = forge()
    leave_list(home, member, say, CLEAN_UP_SECONDS, member.leave())


def leave_list(home: Path, forge: GitHub, say: Say, seconds: float, outcome: str) -> None:
    """Tries on after a first `outcome` until the runner is off the list, for `seconds`, and leaves a mark of how that went."""
    end = time.monotonic() + seconds
    while outcome != GONE and time.monotonic() < end:
        time.sleep(1)
        outcome = forge.leave()
    (home / "gone").write_text(outcome)
    say("deregistered") if outcome == GONE else say("still-registered", why=outcome)
