"""Entry point of the agent: `run`, `cleanup` and `watchdog`, in the folder that holds spec.json."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Dict, Iterable, List

from .reasons import Reason
from .spec import AgentSpec
from .watchdog import Leave, Say, clean_up, comes_back, watch


def write_line(line: bytes, console: Path = Path("/dev/console")) -> None:
    """Writes to standard output or, where that is broken, to the console. Never fails. Without a
    buffer, which Python would have to write at its end."""
    try:
        os.write(1, line)
    except OSError:
        try:
            console.write_bytes(line)
        except OSError:
            pass


def say_on_console(secrets: Iterable[str]) -> Say:
    """Writes one line for each stage to standard output, which the unit sends to the machine's
    console. `secrets` are replaced with stars."""

    def say(stage: str, **facts: object) -> None:
        line = "cml-runner: " + json.dumps(
            {"stage": stage, "t": round(time.time(), 3), **facts}, default=str
        )
        for secret in secrets:
            line = line.replace(secret, "***")
        write_line(line.encode() + b"\n")

    return say


# `run` is imported only where it is needed: the watchdog does without.


def leave_of(spec: AgentSpec, home: Path, environ: Dict[str, str], say: Say) -> Leave:
    from .run import Agent

    return Agent(spec, home, environ, say).forge.leave


def live(
    spec: AgentSpec, home: Path, environ: Dict[str, str], say: Say, sysfs: Path = Path("/sys")
) -> int:
    """Runs the agent and returns its exit code. After an unexpected error it kills itself, so that
    systemd starts it again if a job is running."""
    from .run import Agent

    try:
        agent = Agent(spec, home, environ, say, sysfs=sysfs)
    except KeyError as error:
        say("failed", why="no such user: %s" % error)
        return Reason.START_FAILED.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.signal())
    try:
        return agent.live()
    except Exception as error:
        say("crashed", why="%s: %s" % (type(error).__name__, error))
        os.kill(os.getpid(), signal.SIGKILL)
        raise


def main(argv: List[str], environ: Dict[str, str], home: Path) -> int:
    spec = AgentSpec.from_json((home / "spec.json").read_text())
    os.environ.update(spec.environment)
    say = say_on_console(spec.secrets())
    if argv == ["run"]:
        return live(spec, home, environ, say)
    if argv == ["watchdog"]:
        return watch(home, spec, lambda: leave_of(spec, home, environ, say), say, time.monotonic())
    result = environ.get("SERVICE_RESULT", "")
    if comes_back(home, result):
        return 0
    if result not in ("", "success", "exit-code"):
        say("ended", why=result)
    clean_up(home, lambda: leave_of(spec, home, environ, say), say)
    return 1


def run() -> int:
    return main(sys.argv[1:], dict(os.environ), Path.cwd())


if __name__ == "__main__":
    sys.exit(run())
