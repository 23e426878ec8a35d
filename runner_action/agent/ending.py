"""A machine's deletion of itself, on clouds where a machine that is powered off still exists and
costs money. It happens just before the power-off (`bootstrap/units.py`). Before the machine becomes
a runner, it proves that it will be able to. What it needs is in deletion.json.

The module of such a cloud has a `Deletion` with: `credentials()`, pairs of a name and a function
that returns a token; `delete(bearer)`, and `may(bearer)` where the permission has to be proven,
both return None or the error; `seconds` to keep trying, None for no limit."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from .__main__ import say_on_console
from .calls import Plain, call, pauses
from .lifecycle import Phase
from .spec import AgentSpec
from .watchdog import Say, read_beat

LINGER = 30.0
"""Seconds for the launcher to read the console, which it does every ten."""
MOST, MOST_PROVING = 60.0, 10.0
"""Seconds between two attempts at most."""

Sleep = Callable[[float], None]
Now = Callable[[], float]


class Unproven(Exception):
    """Why this machine must not become a runner."""


def end(
    home: Path,
    cloud: str,
    environ: Dict[str, str],
    linger: float = LINGER,
    now: Now = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """Deletes this machine. Returns when the cloud has accepted that, or when the cloud's `seconds`
    are over; then the power-off follows."""
    say = say_on_console(_prepared(home))
    kind = _kind(cloud)
    reported = ""
    began = now()
    if failed(home):
        sleep(linger)
    for pause in pauses(MOST):
        why = _outcome(kind, home, environ, "delete")
        if why is None:
            say("deleting")
            return
        if why != reported:  # the same error is logged once, not every minute
            reported = why
            say("not-deleted", why=why)
        if kind.seconds is not None and now() + pause > began + kind.seconds:
            return
        sleep(pause)


def _prepared(home: Path) -> List[str]:
    """Sets the environment that the spec gives, such as a proxy. Returns the spec's secrets.
    A machine whose spec cannot be read is deleted, too."""
    try:
        spec = AgentSpec.from_json((home / "spec.json").read_text())
    except Exception:  # whatever has become of it
        return []
    os.environ.update(spec.environment)
    return spec.secrets()


def prove(
    spec: AgentSpec,
    home: Path,
    environ: Dict[str, str],
    say: Say,
    now: Now = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """Returns if this machine may delete itself, or need not prove it. Raises Unproven. A new
    permission takes minutes to work, so this tries for half of the start timeout: the launcher,
    which started earlier, must still see the result."""
    kind = _kind(spec.cloud)
    until = now() + spec.start_timeout / 2
    if not hasattr(kind, "may"):
        return
    for pause in pauses(MOST_PROVING):
        why = _outcome(kind, home, environ, "may")
        if why is None:
            return
        if now() + pause > until:
            raise Unproven("%s %s" % (kind.must, why))
        if pause == 1:
            say("unproven", why=why)
        sleep(pause)


def failed(home: Path) -> bool:
    """Whether the machine failed, so that the launcher may be waiting for the reason; the console
    is deleted with the machine."""
    beat = read_beat(home)
    return beat is not None and (
        beat.state.phase is Phase.STARTING
        or bool(beat.state.reason and beat.state.reason.exit_code)
    )


def _kind(cloud: str) -> Any:
    return importlib.import_module("." + cloud, __package__).Deletion


def _outcome(kind: Any, home: Path, environ: Dict[str, str], what: str) -> Optional[str]:
    try:
        facts = json.loads((home / "deletion.json").read_text())
        return each(kind(facts, environ.get("CML_RUNNER_METADATA", ""), ask), what)
    except Exception as error:  # try again after any error
        return _text(error)


def each(deletion: Any, what: str) -> Optional[str]:
    """Tries the credentials in turn, with a new token each. Returns None if one succeeded, else
    the error of each."""
    errors = []
    for name, token in deletion.credentials():
        try:
            why: Optional[str] = getattr(deletion, what)(token())
        except Exception as error:  # try the next one
            why = _text(error)
        if why is None:
            return None
        errors.append("%s: %s" % (name, why))
    return "; ".join(errors) or "it has no credentials"


def _text(error: Exception) -> str:
    return "%s: %s" % (type(error).__name__, error)


def ask(
    method: str,
    url: str,
    headers: Dict[str, str],
    body: Optional[bytes] = None,
    seconds: float = 10,
) -> Tuple[int, str]:
    """Sends a request to a cloud's API. Returns status and text."""
    request = urllib.request.Request(url, body, headers, method=method)
    status, _, text = call(urllib.request.build_opener(Plain), request, seconds)
    return status, text


if __name__ == "__main__":
    end(Path.cwd(), sys.argv[1], dict(os.environ))
