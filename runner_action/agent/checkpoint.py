"""The user's checkpoint script. Machines without one do not get this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from .process import run_to_end


def save_progress(
    agent: Any, script: Path, reason: str, seconds: int, over: Callable[[], bool]
) -> None:
    """Runs the script as the job user for at most `seconds`, or until `over()`, with the reason and
    the seconds in its environment. `agent`: the `run.Agent`."""
    agent.say("checkpoint", seconds=seconds)
    env = {
        **agent.env,
        "CML_RUNNER_REASON": reason.lower().replace("_", "-"),
        "CML_RUNNER_SECONDS_LEFT": str(seconds),
    }
    try:
        script.chmod(0o755)
        failed = run_to_end(
            [str(script)], agent.home / "runner", env, seconds, over=over, **agent.identity
        )
    except OSError as error:
        failed = str(error)
    agent.say("checkpoint-done", why=failed)
