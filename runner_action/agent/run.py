"""The main loop of the agent: it starts the runner, follows its lifecycle, and leaves. This module
only acts; the decisions are made in `lifecycle`.

All events go into one queue, which one loop handles. The agent does not end the machine: when its
service ends, for whatever reason, systemd powers off (`bootstrap/units.py`). On a machine that is
not a cloud's, only the agent ends.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from . import events, forge, lifecycle, metadata
from .become import Start
from .leave import Leave
from .lifecycle import Phase
from .process import Child, Tail, child_environment, identity, job_user
from .removal import remove_tree
from .spec import AgentSpec
from .watchdog import FLOOR, USED_UP, Beat, Say, disk_full, read_beat, write_beat

TICK = 1.0
"""Seconds between two reads of the hooks' and the runner's files; a twentieth of that while the
launcher waits for the runner."""
BEAT = 5.0
"""Seconds between two heartbeats."""
RELAUNCH_SECONDS = 5.0
ROUNDS = 6
"""Beats between two checks whether anything works on the job."""


class Agent:
    """The agent of one machine. `home`: the folder for everything it writes; `now`: the monotonic
    clock; `guard`: a command in front of the runner's, so that the runner does not outlive this
    process. Raises KeyError if there is no such job user."""

    def __init__(
        self,
        spec: AgentSpec,
        home: Path,
        environ: Dict[str, str],
        say: Say,
        now: Callable[[], float] = time.monotonic,
        sysfs: Path = Path("/sys"),
        guard: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.home = home
        self.say = say
        self.now = now
        self.guard = guard
        self.environ = {**environ, **spec.environment}
        self.user = job_user(spec.job_user, self.environ)
        self.identity = identity(self.user)
        self.env = child_environment(self.user, self.environ)
        self.forge = forge.member(spec, home / "runner", self.env, self.identity)
        # A SimpleQueue, as its put() may be called from a signal handler.
        self.queue: "queue.SimpleQueue[events.Event]" = queue.SimpleQueue()
        self.state = lifecycle.born(now())
        self.notices = self._notices()
        self._start = Start(spec, home, self.environ, self.user, self.identity, say, sysfs)
        name = ".restarting" if spec.api_token else ".leave"
        self._leave: Leave = importlib.import_module(name, __package__).Leave(self)
        self._child: Optional[Child] = None
        self._jobs = Tail(home / "jobs")
        self._log = Tail(home / "runner.log")
        self.job: events.Ref = None
        """What to restart if the current job is interrupted, as far as it is known."""
        self.works = False
        """The runner has a job, by its own word."""
        self._working = True
        """Nothing shows that the job is not being worked on."""
        self._beaten = 0.0
        self._notice = ""

    def _notices(self) -> Optional[metadata.Notices]:
        if self.spec.cloud not in metadata.CLOUDS:
            return None
        module = importlib.import_module("." + self.spec.cloud, __package__)
        notices: metadata.Notices = module.Notices(self.environ.get("CML_RUNNER_METADATA", ""))
        return notices

    # --- becoming a runner

    def start(self) -> None:
        """Becomes a runner, in a thread of its own, so that signals and time limits are handled
        meanwhile. Reports through the queue."""
        self._try(lambda: self._start.run(self.forge), self._launch)

    def _try(self, *steps: Callable[[], object]) -> None:
        try:
            for step in steps:
                step()
        except Exception as error:  # whatever failed, the machine must leave and say why
            self.queue.put(events.Failed(self.now(), str(error) or type(error).__name__))

    def _launch(self) -> None:
        if self.state.phase is not Phase.STARTING:
            return
        self._child = self._start.retried("runner", self._begin)
        # Only an agent that was killed needs it.
        self.tried("no-pid", (self.home / "runner.pid").write_text, str(self._child.pid))

    def _begin(self) -> Child:
        return Child.start(
            [*self.guard, *self.forge.command],
            self.home / "runner",
            self.forge.environment(self.home / "hooks", self.home / "jobs"),
            self.home / "runner.log",
            self._exited,
            stdin=subprocess.PIPE if self.guard else subprocess.DEVNULL,
            **self.identity,
        )

    def _again(self) -> None:
        time.sleep(RELAUNCH_SECONDS)
        self._try(self._launch)

    def _exited(self, code: int) -> None:
        self.queue.put(events.RunnerExited(self.now(), code))

    # --- living

    def live(self) -> int:
        """Runs until there is a reason to leave and the runner may go. Returns the exit code."""
        self.say("agent", name=self.spec.name)
        if not self._resume():
            threading.Thread(target=self.start, daemon=True).start()
        threading.Thread(target=self._tend, daemon=True).start()
        self._watch_notices()
        while True:
            self.look(TICK / 20 if self.state.phase is Phase.STARTING else TICK)
            self._beat()
            if self._leaves() and self._left():
                assert self.state.reason is not None
                return self.state.reason.exit_code

    def signal(self) -> None:
        """Records a signal, which is then handled by the loop or by a `Leave`."""
        self.queue.put(events.Signalled(self.now()))

    def look(self, wait: float = 0.01) -> None:
        """Handles what has happened, or happens within `wait` seconds. Only for the main thread."""
        for event in self._next(wait):
            self._advance(event)

    def _watch_notices(self) -> None:
        """Starts to poll for notices from the cloud, if it gives any."""
        if self.notices:
            threading.Thread(target=self._listen, args=(self.notices,), daemon=True).start()

    def _resume(self) -> bool:
        """Carries on after an agent that was killed, whose runner is still alive. Returns False
        if there was none."""
        beat = read_beat(self.home)
        if beat is None or beat.at > self.now():
            return False
        self.state = beat.state
        self.job = beat.job
        self._jobs.offset = beat.jobs_offset
        self._log.offset = beat.log_offset
        try:
            self._child = Child.adopt(int((self.home / "runner.pid").read_text()), self._exited)
        except (OSError, ValueError):
            self.queue.put(events.RunnerExited(self.now(), -1))
        self.look()  # what has happened since then
        self.state = lifecycle.resumed(self.state, self.now())
        self.say("resumed", phase=self.state.phase.value)
        return True

    def _tend(self) -> None:
        """Deletes the workspaces that the hooks have moved aside, in the background, so that no
        job waits for it; and checks whether anything works on the current job."""
        reported: List[str] = []
        for number in itertools.count():
            if self._child and self.state.job and not number % ROUNDS:
                works = self.tried("not-checked", self.forge.works, self._child.pid)
                self._working = works is not False
            for path in self.home.glob("runner/_work/_cml-done-*"):
                left = remove_tree(path)
                if left and left[0] not in reported:
                    reported.append(left[0])
                    self.say("left", why=left[0])
            time.sleep(BEAT)

    def tried(self, failed: str, act: Callable[..., Any], *args: Any) -> Any:
        """The result of `act(*args)`. If that fails, which nothing must depend on: None, and a line
        with the stage `failed`."""
        try:
            return act(*args)
        except Exception as error:
            self.say(failed, why=str(error))
            return None

    def _test(self) -> None:
        """Tidies up after a job, and tests whether the machine can run another."""
        self.tried("not-checked", self.forge.tidy)
        why = self.tried("not-checked", self._start.unfit)
        if why:
            self.say("unfit", why=why)
            self.queue.put(events.Failed(self.now(), why))

    def _listen(self, notices: metadata.Notices) -> None:
        """Polls for notices from the cloud until one is final."""
        reported = ""
        while True:
            try:
                notice = notices.look()
                if notice and notice.why != self._notice:
                    self._notice = notice.why
                    self.queue.put(events.Interrupted(self.now(), notice.why, notice.seconds))
                    if notice.seconds is not None:
                        return
            # The service may be busy; without it there are still signals.
            except Exception as error:
                if str(error) != reported:
                    reported = str(error)
                    self.say("no-metadata", why=reported)
            time.sleep(notices.every)

    def _next(self, wait: float) -> List[events.Event]:
        """The next events: from the hooks, from the runner's output, from the queue, and a tick,
        in this order."""
        try:
            queued: List[events.Event] = [self.queue.get(timeout=wait)]
        except queue.Empty:
            queued = []
        jobs = [
            event
            for line in self._jobs.lines()
            for event in self.forge.hook(line.split("\t"), self.now(), self.state.born)
        ]
        output = [event for line in self._log.lines() for event in self._line(line)]
        # How the runner ended is known only now that its last lines have been read.
        queued = [self._explained(event) for event in queued]
        over = 1 + max(
            (at for at, event in enumerate(jobs) if isinstance(event, events.JobFinished)),
            default=-1,
        )
        if over or self.state.phase is Phase.DONE:
            # What the runner says about a finished job comes before the start of the next job.
            output += jobs[over:]
            del jobs[over:]
        # The first line of the runner may be read only after the first line of a hook.
        began = [event for event in output if isinstance(event, events.Online)]
        output = [event for event in output if event not in began]
        # A job goes on as long as anything can be written; the next one needs more.
        full = disk_full(self.home, USED_UP if self.state.job else FLOOR)
        tick = events.Tick(self.now(), full, self._working)
        return [*began, *jobs, *output, *queued, tick]

    def _explained(self, event: events.Event) -> events.Event:
        """The event with everything that is known about it by now."""
        if isinstance(event, events.RunnerExited):
            return events.RunnerExited(event.at, *self.forge.ended(event.code))
        if isinstance(event, events.Signalled) and self.notices:
            return events.Signalled(event.at, self._stops())
        return event

    def _stops(self) -> str:
        """What systemd is stopping, as a signal has arrived. A signal that systemd did not send
        is ignored."""
        argv = ["systemctl", "list-jobs"]
        jobs = self.tried("no-systemd", lambda: subprocess.check_output(argv, timeout=5))
        if jobs is None:
            # Try again until it answers.
            threading.Timer(TICK, self.queue.put, (events.Signalled(self.now()),)).start()
            return ""
        stopping = events.stops(jobs.decode("utf-8", "replace"))
        if stopping == events.SYSTEM:
            # The first poll of new Notices is answered at once, whatever the last one waits for;
            # and there is no time for long pauses.
            self.notices = self._notices()
            if self.notices:
                self.notices.every = 1.0
            self._watch_notices()
        elif not stopping:
            self.say("signal-ignored", why="the machine is not shutting down")
        return stopping

    def _line(self, text: str) -> List[events.Event]:
        """The events that a line of the runner's output means. Every line is logged."""
        self.say("runner", line=text)
        return self.forge.heard(text, self.now())

    def _advance(self, event: events.Event) -> None:
        """Takes the next state, and logs what has changed."""
        before = self.state
        self.state = after = lifecycle.advance(before, event, self.spec)
        self._note_job(event)
        if isinstance(event, events.Interrupted):
            self.say("notice", why=event.why, seconds=event.seconds)
            if event.seconds is None and before.phase is Phase.BUSY:
                threading.Thread(
                    target=self._leave.checkpoint,
                    args=("rebalance", self._leaves, 60.0),
                    daemon=True,
                ).start()
        if after.starts > before.starts:
            threading.Thread(target=self._again, daemon=True).start()
        if after.phase is before.phase:
            return
        self._beaten = 0.0
        if before.phase is Phase.STARTING and after.phase is Phase.IDLE:
            self.say("online")
        if after.phase is Phase.LEAVING and after.reason:
            # Before the runner is online, the launcher is waiting for it: any reason to leave is
            # a failure.
            detail = (
                ": " + event.why if isinstance(event, (events.Failed, events.Interrupted)) else ""
            )
            self.say(
                "failed" if before.phase is Phase.STARTING else "leaving",
                why=after.reason.text + detail,
                job=after.job or None,
            )

    def _leaves(self) -> bool:
        return self.state.phase is Phase.LEAVING

    def _note_job(self, event: events.Event) -> None:
        """The runner's own word about a job has no reference; its hook, seconds later, has one."""
        if isinstance(event, events.JobStarted):
            self.job = event.ref or (self.job if self.works else None)
            self.works = True
            self._working = True
            if event.ref:
                self.say("job-started", job=event.job)
        if isinstance(event, events.JobFinished):
            self.say("job-finished", job=event.job)
            threading.Thread(target=self._test, daemon=True).start()
        if isinstance(event, (events.Settled, events.RunnerExited)):
            self.works = False

    def _beat(self) -> None:
        """Writes the heartbeat that the watchdog checks."""
        if not self._beaten or self.now() - self._beaten >= BEAT:
            self._beaten = self.now()
            beat = Beat(self.state, self._beaten, self.job, self._jobs.offset, self._log.offset)
            # The disk may be full, which the job can mend; if it cannot, the machine leaves.
            self.tried("no-heartbeat", write_beat, self.home, beat, self.spec)

    # --- leaving

    def _left(self) -> bool:
        """Leaves. Returns False if the runner has to stay."""
        state = self.state
        reason = state.reason
        assert reason is not None
        self._start.problems.append(OSError(reason.text))
        while self._start.joining and not self._leave.hurry():
            time.sleep(0.1)
        if reason.restarts and self._leave.interrupts():
            self._leave.with_restart(reason, self._child)
        else:
            # Before it is stopped: an idle runner must not be given a job while it stops.
            outcome = (
                self.forge.leave()
                if not self._child or state.job or self._leave.retired(reason, self._child)
                else lifecycle.REFUSED
            )
            if outcome == lifecycle.REFUSED and reason.may_refuse:
                self.say(
                    "staying",
                    why=("a launch counts on it" if self.forge.claimed else "it was given a job"),
                )
                self._advance(events.Refused(self.now(), self.forge.claimed))
                return False
            self._leave.quietly(self._child, outcome)
        if self.notices:  # the cloud takes the machine anyway
            self.tried("not-acknowledged", self.notices.done)
        self.say("end", why=reason.text)
        return True
