"""The first of two stages, for user data without room for the agent: fetches it, and becomes it
once its SHA-256 is right.

On the machine this is `agent.py` in the folder of spec.json. As soon as the package `agent` is
beside it, Python takes that.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List

FAILED = 6
"""Exit code of an agent whose start-up failed (`lifecycle.Reason.START_FAILED`)."""
MARGIN = 60.0
"""Seconds after `start-timeout` until the watchdog ends the machine, as in `lifecycle`."""
LONGEST = 30.0
"""Seconds between two tries."""
PASSING = (408, 429)
"""Answers below 500 that may be others in a moment."""


class NotFetched(Exception):
    """Why there is no agent, and will not be."""


def say(stage: str, **facts: object) -> None:
    """As the agent does: one line on the console, which the launcher reads."""
    print(
        "cml-runner: " + json.dumps({"stage": stage, "t": round(time.time(), 3), **facts}),
        flush=True,
    )


def fetched(
    url: str,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """What is at the address, asked for until it is there. Raises NotFetched with the last
    answer after so many `seconds`, and at once for what another try would not change."""
    end = now() + seconds
    pause = 1.0
    why = ""
    while now() < end:
        try:
            asked = urllib.request.Request(url, headers={"User-Agent": "cml-runner"})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                found: bytes = answer.read()
            return found
        except urllib.error.HTTPError as error:
            why = "HTTP %d" % error.code
            if error.code < 500 and error.code not in PASSING:
                break
        except (OSError, http.client.HTTPException) as error:
            if why != str(error):
                why = str(error)
                say("agent-waits", why=why)
        sleep(pause)
        pause = min(2 * pause, LONGEST)
    raise NotFetched("the agent could not be fetched from %s: %s" % (url, why))


def load(home: Path, spec: Dict[str, Any]) -> None:
    """Puts the package beside this file. Nothing of it is written before its digest was
    compared. Raises NotFetched."""
    told = json.loads((home / "stage.json").read_text())
    say("agent-fetch", url=told["url"])
    content = fetched(told["url"], spec["start_timeout"])
    digest = hashlib.sha256(content).hexdigest()
    if digest != told["sha256"]:
        raise NotFetched("%s has checksum %s, expected %s" % (told["url"], digest, told["sha256"]))
    fresh = home / "agent.new"
    fresh.mkdir(0o700, exist_ok=True)
    for name, text in json.loads(content.decode()).items():
        (fresh / name).write_text(text, "utf-8")
    fresh.rename(home / "agent")


def wait(home: Path, seconds: float) -> None:
    """Until the unit of the agent has fetched it. Raises NotFetched."""
    end = time.monotonic() + seconds
    while not (home / "agent").exists():
        if time.monotonic() > end:
            raise NotFetched("there is no agent yet")
        time.sleep(1)


def late(home: Path, spec: Dict[str, Any], now: float) -> bool:
    """The watchdog's look while there is no agent: it has had its time, or the machine was
    started again without one."""
    mark = home / "first-look"
    if not mark.exists():
        mark.write_text(str(now))
    return not 0 <= now - float(mark.read_text()) < spec["start_timeout"] + MARGIN


def main(argv: List[str], home: Path) -> int:
    """With the words that the agent would have."""
    spec = json.loads((home / "spec.json").read_text())
    os.environ.update(spec.get("environment", {}))
    if argv == ["cleanup"]:
        return 1  # without an agent nothing has registered
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
