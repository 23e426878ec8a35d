"""What a machine with an API token does beyond `leave.py`: it restarts the job that it interrupts,
and, as the last machine of its run, those that others have left."""

from __future__ import annotations

import threading
import time
from typing import Any, Optional

from . import leave, lifecycle
from .events import Ref
from .lifecycle import INF
from .plan import Leaving
from .process import Child
from .reasons import ONCE, Reason

KILLED = 5.0
"""Seconds until a run is cancelled by force whose runner has ended without a word to GitHub."""
TAKEN = (Reason.TAKEN, Reason.SHUT_DOWN, Reason.STOPPED)
"""Reasons that leave no time but their own."""
LOOK = 0.2, 5.0
LAST_STEPS = 0.5, INF
RERUN = 1.0, INF
"""Further steps, as in `leave.py`. LOOK: at the run, which may be cancelled. LAST_STEPS: those of a
cancelled job, such as its `if: always()`. RERUN: until the run is completed, and its re-run
accepted."""
RESERVE = 15.0
"""Seconds for stopping and deregistering an idle runner."""


class Leave(leave.Leave):
    def __init__(self, agent: Any) -> None:
        super().__init__(agent)
        self._alone: Optional[bool] = None
        self._restarting: Optional[threading.Thread] = None

    def quietly(self, child: Optional[Child], outcome: str) -> None:
        idle = not self.agent.state.job
        super().quietly(child, outcome)
        state = self.agent.state
        if idle and state.job:
            # It was given a job as it left. Its runner may be deregistered, as GitHub lists it as
            # busy only some time later, and then nobody else ends that job.
            if state.reason not in TAKEN:
                self.agent.state = lifecycle.leaves(state, self.agent.now(), Reason.CRASHED)
            self.with_restart(state.reason, None)

    def restart(self, reason: Reason, runs: bool) -> None:
        # From now on no launch counts on this runner.
        threading.Thread(target=self.agent.forge.retire, args=(None,), daemon=True).start()
        restarts = max(reason.restarts, ONCE)
        self._restarting = threading.Thread(target=self._run, args=(restarts, runs), daemon=True)
        self._restarting.start()
        if runs:
            over = self.over(LOOK)
            while self._alone is None and not over():
                time.sleep(0.1)
            over = self.over(LAST_STEPS)
            while self._alone and self.agent.works and not over():
                time.sleep(0.1)

    def _run(self, restarts: int, runs: bool) -> None:
        job = self.agent.job or self.waiting()
        outcome = "not restarted: its run is not known"
        if job:
            self._alone = self.agent.forge.end(job, restarts)
            left = self.left()
            plan = Leaving(left, left / 2 if runs else KILLED, self._alone, restarts, runs)
            outcome = self.agent.forge.restart(job, plan)
        self._alone = bool(self._alone)
        self.agent.say("restart", outcome=outcome)

    def with_restart(self, reason: Reason, child: Optional[Child]) -> None:
        """Returns when the restart is accepted, or when the time is over."""
        super().with_restart(reason, child)
        over = self.over(RERUN)
        while self._restarting and self._restarting.is_alive() and not over():
            self._restarting.join(0.2)

    def _deregister(self, outcome: str) -> None:
        """By now the runner has ended."""
        self.agent.forge.runner_stopped()
        super()._deregister(outcome)

    def interrupts(self) -> bool:
        super().interrupts()
        state = self.agent.state
        if not state.job:
            asks = state.reason in (*TAKEN, Reason.CRASHED)
            self.agent.job = self.waiting() if asks else None
        return bool(state.job or self.agent.job)

    def waiting(self) -> Ref:
        """The run that launched this machine, if a job there has this runner or waits for it."""
        try:
            return self.agent.forge.waiting() if self.agent.spec.restart_limit else None
        except Exception:  # without an answer nothing is known to wait
            return None

    def retired(self, reason: Reason, child: Optional[Child]) -> bool:
        """Also False if it will have a job that it has restarted for another machine."""
        forge = self.agent.forge
        if not reason.exit_code and not reason.restarts:
            forge.claimed = False
            what = forge.inherit(reason.may_refuse, self.left() - RESERVE)
            if what:
                self.agent.say("restart", outcome="for another machine: " + what)
            if forge.claimed:
                return False
        return super().retired(reason, child)
