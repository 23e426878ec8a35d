"""The steps by which a machine leaves. Each step runs even if the previous one failed. Its time is
planned when it begins, and again whenever the end of the machine comes nearer.

Without a job to restart:
1 the runner is deregistered while it is still running
2 the runner is stopped; if it has a job, the job's log gets a warning before that
3 it is deregistered again, if a job prevented that the first time

With a job to restart (the second and the last step only with a token: `restarting.py`):
1 the job's log gets a warning, and the user's checkpoint script runs
2 if nothing else runs in the run, it is cancelled, so that the job's last steps run
3 the runner is asked to stop, and then killed
4 it is deregistered; being busy does not keep it
5 the restart is requested until it is accepted, or until the machine is taken

Then the cloud is notified that the machine is ready to go.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Optional, Tuple

from . import room
from .lifecycle import INF, URGENT_SECONDS
from .process import Child
from .reasons import Reason
from .watchdog import leave_list

REPORT = 0.2, 20.0
CHECKPOINT = 0.5, INF
STOP = 0.8, 20.0
"""Of a step: how much it may take of the time that is left when it begins, and at most how many
seconds. REPORT: the runner's own, of a job whose last step is over. CHECKPOINT: the user's script.
STOP: the runner's process, which needs ten seconds if a step of its job ignores its signals."""


def limit(step: Tuple[float, float], left: float) -> float:
    """The seconds for a step if `left` remain."""
    return min(left * step[0], step[1])


class Leave:
    """The steps of leaving. `agent`: the `run.Agent`."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self._saving = threading.Lock()

    def left(self) -> float:
        """The seconds until the machine must have left."""
        return self.agent.state.ends - self.agent.now()  # type: ignore[no-any-return]

    def hurry(self) -> bool:
        self.agent.look()
        return self.left() <= URGENT_SECONDS

    def over(self, step: Tuple[float, float]) -> Callable[[], bool]:
        """Tells whether the time of a step that begins now is over."""
        end = until = INF

        def over() -> bool:
            nonlocal end, until
            self.agent.look()
            if self.agent.state.ends < end:
                end = self.agent.state.ends
                until = self.agent.now() + limit(step, self.left())
            return self.agent.now() >= until  # type: ignore[no-any-return]

        return over

    def quietly(self, child: Optional[Child], outcome: str) -> None:
        """Without a restart. `outcome`: of the first attempt to deregister."""
        if child:
            if self.agent.state.job and not child.over.is_set():
                self._warn(self.agent.state.reason, child)
            child.stop(20, self.hurry)
        self._deregister(outcome)

    def with_restart(self, reason: Reason, child: Optional[Child]) -> None:
        run, number, attempt = self.agent.job or ("its", "run", "?")
        run = "%s %s" % (run, number)
        self.agent.say("interrupted", why=reason.text, run=run, attempt=attempt)
        lost = reason is Reason.CRASHED or self.agent.state.finished
        runs = None if lost or not child or child.over.is_set() else child
        if runs:
            self._warn(reason, runs)
            self.checkpoint(reason.name, self.over(CHECKPOINT))
        self.restart(reason, bool(runs))
        if child:
            child.stop(INF, self.over(STOP))
        self._deregister("")

    def restart(self, reason: Reason, runs: bool) -> None:
        """Starts to request the restart. Returns when the runner is to be stopped. `runs`: it
        still has its job."""
        self.agent.say("restart", outcome="not restarted: restarting is switched off")

    def interrupts(self) -> bool:
        """Whether the end of this machine interrupts a job, or the wait for one. Waits until the
        runner has reported a job whose last step is over."""
        over = self.over(REPORT)
        while self.agent.state.finished and not over():
            time.sleep(0.1)
        return bool(self.agent.state.job)

    def retired(self, reason: Reason, child: Optional[Child]) -> bool:
        """Whether the idle runner gets no more jobs. False if it has just been given one and may
        stay for it."""
        self.agent.look()
        given = reason.may_refuse and self.agent.state.job
        return not given and self.agent.forge.retire(child)

    def _deregister(self, outcome: str) -> None:
        agent = self.agent
        leave_list(agent.home, agent.forge.leave, agent.say, self.left(), outcome, self.hurry)

    def _warn(self, reason: Reason, child: Child) -> None:
        """Writes the annotation from which people and `cml-runner restart` learn the reason."""
        attempt = self.agent.job and self.agent.job[2]
        last = self.agent.forge.last(attempt, reason) if reason.restarts else ""
        warning = "interrupted: %s (runner %s, attempt %s%s)" % (
            reason.text,
            self.agent.spec.name,
            attempt or "?",
            last and ", not restarted: " + last,
        )
        outputs = self.agent.tried("not-checked", self.agent.forge.outputs, child.pid)
        self.agent.say("job-warned", done=room.warn_job(outputs or (), warning))

    def checkpoint(self, reason: str, over: Callable[[], bool], most: float = INF) -> None:
        """Runs the user's script, if there is one. One at a time, as a notice may follow a
        recommendation."""
        script = self.agent.home / "checkpoint.sh"
        if not script.exists() or self.left() <= URGENT_SECONDS:
            return
        from .checkpoint import save_progress

        with self._saving:
            seconds = int(min(most, limit(CHECKPOINT, self.left())))
            save_progress(self.agent, script, reason, seconds, over)
