"""The first of two stages, used where the user data has no room for the agent: downloads the agent,
and runs it if its SHA-256 matches.

On the machine this is `agent.py` in the folder of spec.json. Once the package `agent` is beside it,
Python prefers that.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List

FAILED = 6
"""Exit code of an agent whose start-up failed (`reasons.Reason.START_FAILED`)."""
MARGIN = 60.0
"""Seconds after `start-timeout` until the watchdog ends the machine, as in `lifecycle`."""
LONGEST = 30.0
"""Seconds between two attempts at most."""
WHOLE = 120.0
"""Seconds for an attempt as a whole."""
TRANSIENT = (408, 425, 429)
"""Statuses below 500 after which another attempt may succeed."""


class NotFetched(Exception):
    """Why the agent could not be downloaded."""


def say(stage: str, **facts: object) -> None:
    """Writes a line to the console, which the launcher reads, in the agent's format. Never fails,
    as `__main__.write_line`, which is not here yet."""
    line = json.dumps({"stage": stage, "t": round(time.time(), 3), **facts})
    with contextlib.suppress(OSError):
        os.write(1, b"cml-runner: %s\n" % line.encode())


def downloaded(url: str, seconds: float) -> bytes:
    """Makes an attempt of at most `seconds` as a whole, in a thread of its own as in `calls`, which
    is not here yet. Raises OSError or HTTPException."""
    outcome: List[Any] = [OSError("timed out after %d s" % seconds)]

    def send() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "cml-runner"})
            with urllib.request.urlopen(request, timeout=20) as response:
                outcome.append(response.read())
        except Exception as error:  # raised again by the waiting thread
            outcome.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(seconds)
    last = outcome[-1]
    if isinstance(last, Exception):
        raise last
    return last  # type: ignore[no-any-return]


def fetched(
    url: str,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    whole: float = WHOLE,
) -> bytes:
    """Downloads `url`, trying again for `seconds`. Raises NotFetched with the last error, at once
    if another attempt would not help."""
    end = now() + seconds
    pause = 1.0
    why = ""
    while now() < end:
        said = why
        try:
            return downloaded(url, whole)
        except urllib.error.HTTPError as error:
            error.close()
            why = "HTTP %d" % error.code
            if error.code < 500 and error.code not in TRANSIENT:
                break
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        if why != said:
            say("agent-waits", why=why)
        sleep(pause)
        pause = min(2 * pause, LONGEST)
    raise NotFetched("could not download the agent from %s: %s" % (url, why))


def load(home: Path, spec: Dict[str, Any]) -> None:
    """Downloads the package `agent` to beside this file. Nothing of it is written before its
    checksum is compared. Raises NotFetched."""
    source = json.loads((home / "stage.json").read_text())
    url = source["url"]
    say("agent-fetch", url=url)
    content = fetched(url, spec["start_timeout"])
    digest = hashlib.sha256(content).hexdigest()
    if digest != source["sha256"]:
        raise NotFetched("%s has checksum %s, expected %s" % (url, digest, source["sha256"]))
    fresh = home / "agent.new"
    fresh.mkdir(0o700, exist_ok=True)
    for name, text in json.loads(content.decode()).items():
        (fresh / name).write_text(text, "utf-8")
    fresh.rename(home / "agent")


def wait(home: Path, seconds: float) -> None:
    """Waits until the agent's own unit has downloaded it. Raises NotFetched."""
    end = time.monotonic() + seconds
    while not (home / "agent").exists():
        if time.monotonic() > end:
            raise NotFetched("the agent is not downloaded yet")
        time.sleep(1)


def late(home: Path, spec: Dict[str, Any], now: float) -> bool:
    """The watchdog's check while there is no agent: whether the download has had enough time, or
    the machine was restarted meanwhile."""
    file = home / "first-look"
    if not file.exists():
        file.write_text(str(now))
    return not 0 <= now - float(file.read_text()) < spec["start_timeout"] + MARGIN


def main(argv: List[str], home: Path) -> int:
    """Takes the same arguments as the agent."""
    spec = json.loads((home / "spec.json").read_text())
    os.environ.update(spec.get("environment", {}))
    if argv == ["cleanup"]:
        return 1  # without an agent there is no registration
    if argv == ["watchdog"]:
        return int(late(home, spec, time.monotonic()))
    try:
        if argv == ["run"]:
            load(home, spec)
        else:
            wait(home, spec["start_timeout"])
    except (NotFetched, OSError, ValueError) as error:
        say("failed", why=str(error))
        return FAILED
    return os.execv(sys.executable, [sys.executable, "-m", "agent", *argv])  # noqa: S606  no shell is the point


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
