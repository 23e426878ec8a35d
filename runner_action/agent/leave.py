"""The steps by which a machine leaves. Each step runs even if the previous one failed, and takes
no longer than the plan allows.

Without a job to restart:
1 the runner is deregistered while it is still running
2 the runner is stopped
3 it is deregistered again, if a job prevented that the first time

With a job to restart:
1 the job's log gets a warning, and the user's checkpoint script runs
2 the runner is asked to stop; meanwhile the run is ended and restarted
3 the runner is killed
4 the runner is deregistered; being busy does not keep it
5 the cloud is notified that the machine is ready to go
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from . import room
from .events import Ref
from .forge import Member
from .lifecycle import Leaving, Reason, State
from .process import Child, run_to_end
from .spec import AgentSpec
from .watchdog import Say, leave_list

URGENT_SECONDS = 4.0
"""Time limit for everything after a second signal."""


class Leave:
    """The steps of leaving. `hurry`: whether a second signal has arrived."""

    def __init__(
        self,
        spec: AgentSpec,
        home: Path,
        forge: Member,
        say: Say,
        hurry: Callable[[], bool],
        identity: Dict[str, Any],
        env: Dict[str, str],
    ) -> None:
        self.spec = spec
        self.home = home
        self.forge = forge
        self.say = say
        self.hurry = hurry
        self.identity = identity
        self.env = env

    def quietly(self, child: Optional[Child], plan: Leaving, outcome: str) -> None:
        """Without a restart. `outcome`: of the first attempt to deregister."""
        if child:
            child.stop(plan.stop, self.hurry)
        leave_list(
            self.home, self.forge.leave, self.say, plan.total - plan.stop, outcome, self.hurry
        )

    def with_restart(
        self,
        reason: Reason,
        job: Tuple[str, int, Optional[int]],
        child: Optional[Child],
        plan: Leaving,
    ) -> None:
        began = time.monotonic()
        repository, number, attempt = job
        self.say(
            "interrupted", why=reason.text, run="%s %d" % (repository, number), attempt=attempt
        )
        # From now on no launch counts on this runner.
        threading.Thread(target=self.forge.retire, args=(None,), daemon=True).start()
        if child and reason is not Reason.CRASHED:
            self._warn(reason, attempt, child)
            self.checkpoint(reason.name, plan.checkpoint)
        restarting = threading.Thread(target=self._restart, args=(job, plan), daemon=True)
        restarting.start()
        if child:
            child.stop(plan.stop, self.hurry)
        while restarting.is_alive() and time.monotonic() < began + (
            URGENT_SECONDS if self.hurry() else plan.total
        ):
            restarting.join(0.2)
        leave_list(
            self.home,
            self.forge.leave,
            self.say,
            began + plan.total - time.monotonic(),
            self.forge.leave(),
            self.hurry,
        )

    def _warn(self, reason: Reason, attempt: Optional[int], child: Child) -> None:
        """Writes the annotation from which people and `cml-runner restart` learn the reason."""
        last = self.forge.last(attempt, reason)
        warning = "interrupted: %s (runner %s, attempt %s%s)" % (
            reason.text,
            self.spec.name,
            attempt or "?",
            last and ", not restarted: " + last,
        )
        self.say("job-warned", done=room.warn_job(child.pid, warning))

    def checkpoint(self, reason: str, seconds: float) -> None:
        """Runs the user's script as the job user, with the reason and the seconds left in its
        environment."""
        script = self.home / "checkpoint.sh"
        if not script.exists() or self.hurry():
            return
        self.say("checkpoint", seconds=int(seconds))
        env = {
            **self.env,
            "CML_RUNNER_REASON": reason.lower().replace("_", "-"),
            "CML_RUNNER_SECONDS_LEFT": str(int(seconds)),
        }
        try:
            script.chmod(0o755)
            failed = run_to_end([str(script)], self.home / "runner", env, seconds, **self.identity)
        except OSError as error:
            failed = str(error)
        self.say("checkpoint-done", why=failed)

    def _restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> None:
        self.say("restart", outcome=self.forge.restart(job, plan))


def to_restart(state: State, job: Ref, spec: AgentSpec, forge: Member) -> Ref:
    """What the end of this machine interrupts: its job, or, if it has none, the run that launched
    it, if a job there is still waiting for the runner."""
    assert state.reason is not None
    if state.job:
        return job if state.reason.restarts else None
    try:
        taken = state.reason in (Reason.TAKEN, Reason.SHUT_DOWN, Reason.STOPPED)
        return forge.waiting() if taken and spec.restart_limit else None
    except Exception:  # without an answer nothing is known to wait
        return None
