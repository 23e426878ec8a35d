"""Entry of the agent on a cloud where a machine that powers itself off is still there and costs: `cleanup` and `watchdog` as in `__main__`,
and then, if it is the end, the machine deletes itself. What it needs for that is in deletion.json."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from . import __main__ as agent
from .lifecycle import Phase
from .spec import AgentSpec
from .watchdog import read_beat

SECONDS = 25.0
"""For all tries. A cloud that takes the machine gives it thirty, and then deletes it itself."""
HEARD = 30.0
"""For the launcher to read the console: it looks every ten."""


def main(argv: List[str], environ: Dict[str, str], home: Path) -> int:
    """The exit code that the agent has for it; whatever goes wrong in there, the machine ends, as the unit sees to that."""
    ends = 1
    try:
        ends = agent.main(argv, environ, home)
        return ends
    finally:
        if ends:
            end(home, environ)


def end(home: Path, environ: Dict[str, str], seconds: float = SECONDS, heard: float = HEARD) -> None:
    """Never raises: after this comes the power-off."""
    spec = AgentSpec.from_json((home / "spec.json").read_text())
    say = agent.say_on_console(spec)
    if failed(home):
        time.sleep(heard)
    try:
        why = _delete(json.loads((home / "deletion.json").read_text()), environ.get("CML_RUNNER_METADATA", ""), spec.cloud, time.monotonic() + seconds)
    except Exception as error:  # no reason not to power off
        why = "%s: %s" % (type(error).__name__, error)
    say("deleting") if why is None else say("not-deleted", why=why)


def failed(home: Path) -> bool:
    """Whether the launcher may be listening for the reason; a machine that is deleted takes its console with it."""
    beat = read_beat(home)
    return beat is not None and (beat.state.phase is Phase.STARTING or bool(beat.state.reason and beat.state.reason.exit_code))


def _delete(facts: Dict[str, str], base: str, cloud: str, until: float) -> Optional[str]:
    deletion = importlib.import_module("." + cloud, __package__).Deletion(facts, base, ask)
    while True:
        try:
            why: Optional[str] = deletion.try_once()
            return why
        except OSError as error:
            if time.monotonic() > until:
                return str(error)
        time.sleep(1)


def ask(method: str, url: str, headers: Dict[str, str], body: Optional[bytes] = None) -> Tuple[int, str]:
    """One call of a cloud's API: status and text."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ), Path.cwd()))
