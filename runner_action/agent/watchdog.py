"""Supervision of the agent: its heartbeat, the check of it by a systemd timer, and the cleanup when
the agent has ended."""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from pathlib import Path
from typing import Callable, Optional

from . import lifecycle
from .events import Ref
from .lifecycle import GONE, Phase, State
from .spec import AgentSpec

CLEAN_UP_SECONDS = 20.0
CALM = 60.0
"""Seconds until the watchdog looks into a heartbeat (its unit): less than SILENCE."""
FLOOR = 64 << 20
"""Free bytes that the next job's logs need."""
USED_UP = 1 << 20
"""Free bytes below which nothing can be written. actions/runner warns its job long before."""
Say = Callable[..., None]
Leave = Callable[[], str]
"""Deregisters the runner. Returns GONE, REFUSED, or what went wrong."""


def boot_id() -> str:
    """An id that is new after every boot; empty if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True)
class Beat:
    """A heartbeat: everything that a restarted agent needs to carry on."""

    state: State
    at: float
    job: Ref = None
    jobs_offset: int = 0
    log_offset: int = 0
    boot: str = dataclasses.field(default_factory=boot_id)


def write_beat(home: Path, beat: Beat, spec: Optional[AgentSpec] = None) -> None:
    """Writes atomically, so that the watchdog never reads half a heartbeat. The watchdog looks into
    an old file only, so it is old from the beginning where something else than silence may soon end
    the machine, or without a spec."""
    fresh = home / "heartbeat.new"
    fresh.write_bytes(pickle.dumps(beat))
    if not spec or lifecycle.watchdog(beat.state, beat.at, beat.at + CALM, spec, False):
        os.utime(str(fresh), (0, 0))
    fresh.replace(home / "heartbeat")


def read_beat(home: Path) -> Optional[Beat]:
    """The last heartbeat; None if there is none, or if it cannot be read."""
    try:
        beat: Beat = pickle.loads((home / "heartbeat").read_bytes())  # noqa: S301  only we can write it
        return beat
    except Exception:  # pickle raises anything for half a file
        return None


def disk_full(folder: Path, floor: int = FLOOR) -> bool:
    try:
        space = os.statvfs(str(folder))
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < floor


def first_look(home: Path, now: float) -> float:
    """When the watchdog first looked; `now` if that is the first time. Where that cannot be kept,
    the machine's boot, so that no machine lives for ever."""
    file = home / "first-look"
    try:
        if not file.exists():
            file.write_text(str(now))
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0


def watch(home: Path, spec: AgentSpec, leaver: Callable[[], Leave], say: Say, now: float) -> int:
    """Checks the heartbeat once. Returns the exit code; 1: the machine must end, or the heartbeat
    cannot be read. The third time within minutes, as after any error, systemd ends it."""
    beat = read_beat(home)
    if beat is None and (home / "heartbeat").exists():
        return 1
    at = beat.at if beat else first_look(home, now)
    restarted = beat is not None and "" != beat.boot != boot_id() != ""
    why = lifecycle.watchdog(
        beat.state if beat else None, at, now, spec, disk_full(home), restarted
    )
    if why is None:
        return 0
    say("watchdog", why=why)
    clean_up(home, leaver, say)
    return 1


def comes_back(home: Path, service_result: str) -> bool:
    """Whether systemd may start the agent again: only if it was killed while a job was running,
    and only once. A file remembers that. An OSError has the same effect as True: systemd does not
    wait for a good exit code, and counts the starts itself."""
    beat = read_beat(home)
    restarted = home / "restarted"
    if (
        service_result in ("", "success", "exit-code")
        or beat is None
        or beat.state.phase not in (Phase.BUSY, Phase.DONE)
        or restarted.exists()
    ):
        return False
    restarted.touch()
    return True


def is_gone(home: Path) -> bool:
    """Whether the runner was deregistered, as far as that can be read. A registration that was
    under way when the agent left may have succeeded afterwards."""
    gone = home / "gone"
    registered = home / "runner" / ".runner"
    try:
        return gone.read_text() == GONE and not (
            registered.exists() and registered.stat().st_mtime > gone.stat().st_mtime
        )
    except OSError:
        return False


def clean_up(home: Path, leaver: Callable[[], Leave], say: Say) -> None:
    """Runs after the agent, however it ended: deregisters the runner if the agent did not."""
    if is_gone(home):
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
    """After a first `outcome`, tries for `seconds` to deregister the runner, and writes the last
    outcome into the file `gone`."""
    end = time.monotonic() + seconds
    while outcome != GONE and time.monotonic() < end:
        time.sleep(0.1 if hurry() else 1)
        outcome = leave()
        if hurry():
            break
    try:
        (home / "gone").write_text(outcome)
    except OSError:  # the disk is full
        pass
    if outcome == GONE:
        say("deregistered")
    else:
        say("still-registered", why=outcome)
