"""How a machine leaves, in order; each step runs even if the one before failed, and none lasts
longer than the plan says.

With no job that must be restarted:
1 the runner leaves the forge's list while it still runs
2 the runner is stopped
3 it leaves the list again, if a job held it there

With a job that must be restarted:
1 the job is told, the user's checkpoint runs
2 the runner is asked to stop; meanwhile its run is ended and restarted
3 the runner is stopped for good
4 it leaves the forge's list; that it is busy there is no reason to stay
5 the cloud is told that all is done
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
"""For all of it, after a second signal."""


class Leave:
    """The steps of leaving. `hurry`: a second signal came."""

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
        """After the forge was asked once, with `outcome`."""
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
        # From now on no launch counts on it.
        threading.Thread(target=self.forge.retire, args=(None,), daemon=True).start()
        if child and reason is not Reason.CRASHED:
            # The mark by which people and `cml-runner restart` know the reason.
            last = self.forge.last(attempt, reason)
            last = last and ", not restarted: " + last
            mark = "interrupted: %s (runner %s, attempt %s%s)" % (
                reason.text,
                self.spec.name,
                attempt or "?",
                last,
            )
            self.say("job-warned", done=room.tell_job(child.pid, mark))
            self.checkpoint(reason.name, plan.checkpoint)
        asking = threading.Thread(target=self._restart, args=(job, plan), daemon=True)
        asking.start()
        if child:
            child.stop(plan.stop, self.hurry)
        while asking.is_alive() and time.monotonic() < began + (
            URGENT_SECONDS if self.hurry() else plan.total
        ):
            asking.join(0.2)
        leave_list(
            self.home,
            self.forge.leave,
            self.say,
            began + plan.total - time.monotonic(),
            self.forge.leave(),
            self.hurry,
        )

    def checkpoint(self, reason: str, seconds: float) -> None:
        """The user's script, as the job user, with the reason and the seconds it has."""
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
    """What this machine's end interrupts: its job; without one, what launched it, if a job there
    still waits for it."""
    assert state.reason is not None
    if state.job:
        return job if state.reason.restarts else None
    try:
        taken = state.reason in (Reason.TAKEN, Reason.SHUT_DOWN, Reason.STOPPED)
        return forge.waiting() if taken and spec.restart_limit else None
    except Exception:  # unknown is not known to wait
        return None
