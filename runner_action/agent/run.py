"""The story of a machine: become a runner, live by the lifecycle, leave in order. Effects only; the decisions are in `lifecycle`.

Everything that happens goes into one queue and is answered by one loop. Each step of leaving runs even if the one before
failed. Ending the machine is systemd's: the service ends, however it ends, and the unit powers off (`bootstrap.py`).
"""

from __future__ import annotations

import os
import pwd
import queue
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

from . import download, lifecycle
from .github import BUSY, ONLINE, GitHub
from .lifecycle import Phase
from .process import Child, child_environment, identity, job_user, run_to_end
from .spec import AgentSpec
from .watchdog import Say, leave_list, write_beat

TICK = 0.5
"""Seconds between two looks at the hooks' file and the clock."""
BEAT = 5.0
"""Seconds between two signs of life."""
STOP_SECONDS = 20.0
"""How long the runner may take to leave: it has to cancel its job and send the log."""
RELEASE_SECONDS = 60.0
"""How long the forge may take to see that the job is over, after which the runner can be taken off its list."""
URGENT_SECONDS = 2.0
"""Instead of either, after a second signal."""


class StartUpError(Exception):
    """Why this machine cannot become a runner."""


def policy_of(spec: AgentSpec) -> lifecycle.Policy:
    return lifecycle.Policy(spec.idle_timeout, spec.max_lifetime, spec.start_timeout, spec.single)


class Agent:
    """One machine's agent. `home` holds all it writes; `now` is the monotonic clock. Raises KeyError if the job user is missing."""

    def __init__(self, spec: AgentSpec, home: Path, environ: Dict[str, str], say: Say, now: Callable[[], float] = time.monotonic) -> None:
        self.spec, self.home, self.say, self.now = spec, home, say, now
        self.folder, self.jobs_file = home / "runner", home / "jobs"
        self.environ, self.user = environ, job_user(spec.job_user, environ)
        self.identity = identity(self.user)
        self.forge = GitHub(spec, self.folder, child_environment(self.user, environ), self.identity)
        # A SimpleQueue, since only its put() may be called from a signal handler.
        self.events: "queue.SimpleQueue[lifecycle.Event]" = queue.SimpleQueue()
        self.state = lifecycle.born(now())
        self._child: Optional[Child] = None
        self._read_to, self._beaten = 0, 0.0

    # --- becoming a runner

    def start(self) -> None:
        """Runs in a thread of its own, so that signals and time limits are heard meanwhile; reports through the queue."""
        try:
            self._prepare()
            failed = self.forge.join()
            if failed:
                raise StartUpError("registration: " + failed)
            self.say("configured")
            env = self.forge.environment(self.home / "hooks", self.jobs_file)
            self._child = Child(list(self.forge.command), self.folder, env, self._line, self._exited, **self.identity)
        except Exception as error:  # whatever it is, the machine must leave and say why
            self.events.put(lifecycle.Failed(self.now(), str(error) or type(error).__name__))

    def _prepare(self) -> None:
        """The download and the user's script do not need one another, so they run side by side."""
        self.folder.mkdir(exist_ok=True)
        self.jobs_file.touch()
        if self.identity:
            os.chown(str(self.folder), self.user.pw_uid, self.user.pw_gid)
            os.chown(str(self.jobs_file), self.user.pw_uid, self.user.pw_gid)
        problems: List[Exception] = []
        fetching = threading.Thread(target=self._fetch, args=(problems,), daemon=True)
        fetching.start()
        script = self.home / "startup.sh"
        if script.exists():
            self.say("startup-script")
            env = child_environment(pwd.getpwuid(os.geteuid()), self.environ)
            failed = run_to_end([str(script)], self.home, env, self.spec.start_timeout)
            if failed:
                raise StartUpError("startup script: " + failed)
        fetching.join()
        if problems:
            raise problems[0]

    def _fetch(self, problems: List[Exception]) -> None:
        try:
            download.fetch(self.spec, self.folder, **self.identity)
            self.say("downloaded")
        except Exception as error:  # handed to the thread that waits
            problems.append(error)

    def _line(self, text: str) -> None:
        if text:
            self.say("runner", line=text)
        if ONLINE in text:
            self.events.put(lifecycle.Online(self.now()))

    def _exited(self, code: int) -> None:
        self.events.put(lifecycle.RunnerExited(self.now(), code))

    # --- living

    def live(self) -> int:
        """Until there is a reason to leave and the forge lets go. Returns the exit code."""
        self.say("agent", name=self.spec.name)
        threading.Thread(target=self.start, daemon=True).start()
        while True:
            for event in self._next():
                self._advance(event)
            self._beat()
            if self.state.phase is Phase.LEAVING and self._leave():
                assert self.state.reason is not None
                return self.state.reason.exit_code

    def ask(self) -> None:
        """A signal came. Only recorded: the loop answers."""
        self.events.put(lifecycle.Asked(self.now()))

    def _next(self) -> List[lifecycle.Event]:
        """What the hooks wrote, then what the queue holds, then that time has passed."""
        try:
            waiting: List[lifecycle.Event] = [self.events.get(timeout=TICK)]
        except queue.Empty:
            waiting = []
        return [*self._jobs(), *waiting, lifecycle.Tick(self.now())]

    def _jobs(self) -> List[lifecycle.Event]:
        """New whole lines of the hooks' file; a line still being written waits for the next look."""
        try:
            with self.jobs_file.open("rb") as file:
                file.seek(self._read_to)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to += len(whole)
        told = [line.decode("utf-8", "replace").split("\t") for line in whole.splitlines()]
        return [
            (lifecycle.JobStarted if kind == "started" else lifecycle.JobFinished)(self.now(), "%s of run %s, attempt %s" % (job, run, attempt))
            for kind, run, attempt, job in (line for line in told if len(line) == 4)
        ]

    def _advance(self, event: lifecycle.Event) -> None:
        """Takes the next state, and tells on the console what changed."""
        before = self.state
        self.state = after = lifecycle.advance(before, event, policy_of(self.spec))
        if isinstance(event, (lifecycle.JobStarted, lifecycle.JobFinished)):
            self.say("job-started" if isinstance(event, lifecycle.JobStarted) else "job-finished", job=event.job)
        if after.phase is before.phase:
            return
        if before.phase is Phase.STARTING and after.phase is Phase.IDLE:
            self.say("online")
        if after.phase is Phase.LEAVING and after.reason:
            # Before it was online, any reason is a failure to the launcher, which waits and listens.
            detail = ": " + event.why if isinstance(event, lifecycle.Failed) else ""
            self.say("failed" if before.phase is Phase.STARTING else "leaving", why=after.reason.text + detail)

    def _beat(self) -> None:
        """The sign of life that the watchdog looks for."""
        if not self._beaten or self.now() - self._beaten >= BEAT:
            self._beaten = self.now()
            try:
                write_beat(self.home, self.state, self._beaten)
            except OSError as error:  # a full disk is the job's trouble first; if it lasts, the watchdog takes the silence for what it is
                self.say("no-heartbeat", why=str(error))

    # --- leaving

    def _leave(self) -> bool:
        """Off the forge's list, the runner stopped, and off the list again if a job held it. False: the forge refused and we stay."""
        reason, urgent = self.state.reason, self.state.urgent
        assert reason is not None
        # First while it still runs: an idle runner must not be given a job while it stops.
        outcome = self.forge.leave()
        if outcome == BUSY and reason.may_refuse:
            self.say("staying", why="the forge has just given it a job")
            self._advance(lifecycle.Refused(self.now()))
            return False
        if self._child:
            self._child.stop(URGENT_SECONDS if urgent else STOP_SECONDS)
        leave_list(self.home, self.forge, self.say, URGENT_SECONDS if urgent else RELEASE_SECONDS, outcome)
        self.say("end", why=reason.text)
        return True
