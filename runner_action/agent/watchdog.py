"""What stands outside the agent: the heartbeat it leaves, the look a systemd timer takes at it,
and the clean-up after it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from pathlib import Path
from typing import Callable, Optional

from . import lifecycle
from .events import Ref
from .lifecycle import GONE, Phase, Policy, State

CLEAN_UP_SECONDS = 20.0
FLOOR = 64 << 20
"""Bytes that must be free for the runner to write its logs."""
Say = Callable[..., None]
Leave = Callable[[], str]
"""Asks the forge to take the runner off its list: GONE, REFUSED, or what went wrong."""


def boot_id() -> str:
    """Another one after every start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True)
class Beat:
    """A sign of life: all that an agent started anew needs to go on."""

    state: State
    at: float
    job: Ref = None
    jobs_offset: int = 0
    log_offset: int = 0
    boot: str = dataclasses.field(default_factory=boot_id)


def write_beat(home: Path, beat: Beat) -> None:
    """Replaced in one step: the watchdog never reads half of it."""
    fresh = home / "heartbeat.new"
    fresh.write_bytes(pickle.dumps(beat))
    fresh.replace(home / "heartbeat")


def read_beat(home: Path) -> Optional[Beat]:
    """The last heartbeat, or None if there is none that can be read."""
    try:
        beat: Beat = pickle.loads((home / "heartbeat").read_bytes())  # noqa: S301  our own file, which nobody else may write
        return beat
    except Exception:  # whatever pickle makes of half a file
        return None


def disk_full(folder: Path) -> bool:
    try:
        found = os.statvfs(str(folder))
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < FLOOR


def first_look(home: Path, now: float) -> float:
    """When the watchdog looked for the first time."""
    mark = home / "first-look"
    try:
        return float(mark.read_text())
    except (OSError, ValueError):
        mark.write_text(str(now))
        return now


def watch(home: Path, policy: Policy, leaver: Callable[[], Leave], say: Say, now: float) -> int:
    """One look. 1: the machine must end, and the unit's FailureAction ends it."""
    beat = read_beat(home)
    at = beat.at if beat else first_look(home, now)
    restarted = beat is not None and beat.boot != boot_id()
    why = lifecycle.watchdog(
        beat.state if beat else None, at, now, policy, disk_full(home), restarted
    )
    if why is None:
        return 0
    say("watchdog", why=why)
    clean_up(home, leaver, say)
    return 1


def comes_back(home: Path, service_result: str) -> bool:
    """Whether systemd starts the agent again: once, if it was killed while a job ran.
    Remembered, so that it is once."""
    beat = read_beat(home)
    mark = home / "restarted"
    if (
        service_result in ("", "success", "exit-code")
        or beat is None
        or beat.state.phase not in (Phase.BUSY, Phase.DONE)
        or mark.exists()
    ):
        return False
    mark.touch()
    return True


def clean_up(home: Path, leaver: Callable[[], Leave], say: Say) -> None:
    """After the agent, however it ended: takes the runner off the list if the agent did not get
    to it."""
    gone = home / "gone"
    registered = home / "runner" / ".runner"
    done = gone.exists() and gone.read_text() == GONE
    # A registration that was on its way when the agent left has come through since.
    late = done and registered.exists() and registered.stat().st_mtime > gone.stat().st_mtime
    if done and not late:
        return
    leave = leaver()
    leave_list(home, leave, say, CLEAN_UP_SECONDS, leave())


def leave_list(
    home: Path,
    leave: Leave,
    say: Say,
    seconds: float,
    outcome: str,
    hurry: Callable[[], bool] = lambda: False,
) -> None:
    """Tries on after a first `outcome` until the runner is off the list, for `seconds`, and
    leaves a mark of how that went."""
    end = time.monotonic() + seconds
    while outcome != GONE and time.monotonic() < end:
        time.sleep(0.1 if hurry() else 1)
        outcome = leave()
        if hurry():
            break
    try:
        (home / "gone").write_text(outcome)
    except OSError:  # a full disk
        pass
    if outcome == GONE:
        say("deregistered")
    else:
        say("still-registered", why=outcome)
