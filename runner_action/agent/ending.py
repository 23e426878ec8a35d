"""On a cloud where a machine that powers itself off is still there and costs: it deletes itself,
as the last thing before it powers off (`bootstrap/units.py`), and proves before it becomes a
runner that it may. What it needs is in deletion.json.

A cloud's module has a `Deletion`: `credentials()`, names and ways to a token; `delete(bearer)`, and
`may(bearer)` where the right has to be proven, both None if that came through, else what was
answered; `seconds` to try for, None for ever."""

from __future__ import annotations

import importlib
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from .__main__ import say_on_console
from .lifecycle import Phase
from .spec import AgentSpec
from .watchdog import Say, read_beat

HEARD = 30.0
"""Seconds for the launcher to read the console: it looks every ten."""
MOST, MOST_PROVING = 60.0, 10.0
"""Seconds between two tries at most."""

Sleep = Callable[[float], None]
Now = Callable[[], float]


class Unproven(Exception):
    """Why this machine must not become a runner."""


def end(
    home: Path,
    environ: Dict[str, str],
    heard: float = HEARD,
    now: Now = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """Returns when the cloud has accepted the deletion, or the cloud's `seconds` are over: after
    this comes the power-off."""
    spec = AgentSpec.from_json((home / "spec.json").read_text())
    os.environ.update(spec.environment)
    say = say_on_console(spec)
    said = ""
    began = now()
    if failed(home):
        sleep(heard)
    for pause in pauses(MOST):
        why = _outcome(spec, home, environ, "delete")
        if why is None:
            say("deleting")
            return
        if why != said:  # the same is told once, not every minute
            said = why
            say("not-deleted", why=why)
        limit = _kind(spec).seconds
        if limit is not None and now() + pause > began + limit:
            return
        sleep(pause)


def prove(
    spec: AgentSpec,
    home: Path,
    environ: Dict[str, str],
    say: Say,
    now: Now = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """Returns if this machine may delete itself, or need not prove it; raises Unproven. As a new
    right takes minutes to work, it is asked for half of the start timeout: the launcher, which
    began earlier, shall still hear the answer."""
    kind = _kind(spec)
    until = now() + spec.start_timeout / 2
    if not hasattr(kind, "may"):
        return
    for pause in pauses(MOST_PROVING):
        why = _outcome(spec, home, environ, "may")
        if why is None:
            return
        if now() + pause > until:
            raise Unproven("%s %s" % (kind.must, why))
        if pause == 1:
            say("unproven", why=why)
        sleep(pause)


def pauses(most: float) -> Iterator[float]:
    """Seconds between tries: they grow, and never end."""
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, most)


def failed(home: Path) -> bool:
    """Whether the launcher may be listening for the reason; a machine that is deleted takes its
    console with it."""
    beat = read_beat(home)
    return beat is not None and (
        beat.state.phase is Phase.STARTING
        or bool(beat.state.reason and beat.state.reason.exit_code)
    )


def _kind(spec: AgentSpec) -> Any:
    return importlib.import_module("." + spec.cloud, __package__).Deletion


def _outcome(spec: AgentSpec, home: Path, environ: Dict[str, str], what: str) -> Optional[str]:
    try:
        facts = json.loads((home / "deletion.json").read_text())
        return each(_kind(spec)(facts, environ.get("CML_RUNNER_METADATA", ""), ask), what)
    except Exception as error:  # whatever it is, it is tried again
        return _text(error)


def each(deletion: Any, what: str) -> Optional[str]:
    """Tries the credentials in turn, each of them anew. None: one came through; else what each was
    told."""
    whys = []
    for name, token in deletion.credentials():
        try:
            why: Optional[str] = getattr(deletion, what)(token())
        except Exception as error:  # no reason not to try the next
            why = _text(error)
        if why is None:
            return None
        whys.append("%s: %s" % (name, why))
    return "; ".join(whys) or "it was given no credentials"


def _text(error: Exception) -> str:
    return "%s: %s" % (type(error).__name__, error)


def ask(
    method: str, url: str, headers: Dict[str, str], body: Optional[bytes] = None
) -> Tuple[int, str]:
    """One call of a cloud's API: status and text. Nothing of `headers` goes to where a redirect
    leads."""
    asked = urllib.request.Request(url, body, method=method)
    for name, text in headers.items():
        asked.add_unredirected_header(name, text)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")


if __name__ == "__main__":
    end(Path.cwd(), dict(os.environ))
