"""The guard of a pod: it holds the tokens, makes the calls that need one, and supervises the agent.

It is a container of its own, which accepts requests over a socket. They allow less than a token
would: they are about this runner and the run that its end interrupts.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import signal
import socketserver
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import __main__ as agent
from . import forge, lifecycle
from .events import Ref
from .lifecycle import GONE, Phase, State
from .plan import Leaving
from .process import Child
from .reasons import Reason
from .spec import AgentSpec
from .tokens import WithToken
from .watchdog import CLEAN_UP_SECONDS, Say, leave_list

SPEC, SOCKET = "spec.json", "socket"
NOWHERE = Path("/nowhere")
LINE = 1 << 20
"""Bytes of a request at most."""
CROWD = 32
"""Requests at the same time at most."""
LOOK_SECONDS = 5.0
SILENT_SECONDS = 15.0
"""Without a heartbeat, after which that is reported: the guard itself may be killed soon."""
OVER_SECONDS = 20.0
"""How long after the agent's end the guard has been ended by its kubelet, unless another container
still runs, which a webhook has added to the pod."""
UNWELL_SECONDS = 600.0
"""The same after the guard has first seen that the runner's container must end: three probes, a
minute apart, its grace period, and some more."""
EVICTED = 2 << 20
"""Bytes: more than `sizeLimit` of the volume that they are written to. Kubelets evict such a pod.
https://kubernetes.io/docs/concepts/storage/volumes/#emptydir"""


class Guard:
    """The state of the guard, and its answers. `scripts`: texts by name, for the agent; `now`: the
    monotonic clock."""

    def __init__(
        self,
        spec: AgentSpec,
        scripts: Dict[str, str],
        say: Say,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.scripts = scripts
        self.say = say
        self.now = now
        self.forge = self._member()
        self.gone = False
        self._key = os.urandom(16).hex()
        self._given = False
        self._began = now()
        self._beat: Optional[Tuple[State, float]] = None
        self._well = self._began
        self._over: Optional[float] = None
        self._silent = False
        self._turn = threading.Lock()

    def _member(self) -> forge.Member:
        return forge.member(self.spec, NOWHERE / "runner", {}, {})

    @property
    def _with_token(self) -> WithToken:
        """The member; without a token, one that restarts nothing."""
        if isinstance(self.forge, WithToken):
            return self.forge
        return WithToken(self.spec, NOWHERE, {}, {})

    def answer(self, request: Dict[str, Any]) -> Any:
        """Any process in the pod may call `watch`. The first caller, when there is no job yet, may
        call `start`, and gets the key that all other calls need. Raises PermissionError, or
        anything if the request is malformed.
        """
        call = request.pop("call")
        key = request.pop("key", "")
        if call == "watch":
            return self.watch(**request)
        if call == "start":
            return self.start()
        if not hmac.compare_digest(str(key).encode(), self._key.encode()):
            raise PermissionError("only the agent may call this")
        calls: Dict[str, Callable[..., Any]] = {
            "beat": self.beat,
            "claimed": self.claimed,
            "end": self.end,
            "inherit": self.inherit,
            "joined": self.joined,
            "last": self.last,
            "leave": self.leave,
            "over": self.over,
            "restart": self.restart,
            "runner_stopped": self.runner_stopped,
            "waiting": self.waiting,
        }
        return calls[call](**request)

    def start(self) -> Dict[str, Any]:
        """What the agent needs, without the user's tokens. Only once."""
        with self._turn:
            if self._given:
                raise PermissionError("the agent has already started")
            self._given = True
        spec = dataclasses.replace(self.spec, api_token=None, removal_token=None)
        return {"spec": spec.to_json(), "scripts": self.scripts, "key": self._key}

    def joined(self, ids: Dict[str, int]) -> None:
        """Records the runner's id, and its pool if it has one, until the runner is online: an agent
        that got no answer registers it again. An id that the launcher knew stays."""
        starting = self._beat is None or self._beat[0].phase is Phase.STARTING
        with self._turn:
            if starting and (self.forge.ids or not self.spec.runner_id):
                self.spec = dataclasses.replace(self.spec, runner_id=int(ids["agentId"]))
                self.forge = self._member()
                self.forge.ids = {name: int(number) for name, number in ids.items()}

    def beat(self, phase: str, reason: Optional[str], since: float, born: float) -> None:
        why = Reason[reason] if reason else None
        self._beat = State(Phase(phase), float(since), float(born), why), self.now()

    def watch(self, full: bool = False) -> Optional[str]:
        """Why the runner's container must end, or None. `full`: its disk is full."""
        if not self._given:
            late = self.now() - self._began > lifecycle.SILENCE
            return "the agent did not start" if late else None
        state, at = self._beat or (None, self._began)
        return lifecycle.watchdog(state, at, self.now(), self.spec, bool(full))

    def over(self) -> None:
        """The agent ends."""
        self._over = self.now()

    def is_overdue(self) -> bool:
        """Whether the runner's container has ended, but not the pod."""
        if self._over is not None:
            return self.now() - self._over >= OVER_SECONDS
        if not self.watch():
            self._well = self.now()
        return self.now() - self._well >= UNWELL_SECONDS

    def report_silence(self) -> None:
        """Reports an agent that has fallen silent, once: an eviction may leave no time to do so
        when it has ended."""
        silent = self._beat is not None and self.now() - self._beat[1] >= SILENT_SECONDS
        if silent and not self._silent and self._over is None:
            self.say("silent", why="the agent has not been heard for %d s" % SILENT_SECONDS)
        self._silent = silent

    def claimed(self, leaving: bool) -> bool:
        """Whether a launch counts on the runner. If the runner is `leaving`, also keeps launches
        from counting on it."""
        self.forge.retire(None if leaving else _Ended())
        return self.forge.claimed

    def leave(self) -> str:
        outcome = self.forge.leave()
        self.gone = self.gone or outcome == GONE
        return outcome

    def waiting(self) -> Ref:
        return self._with_token.waiting()

    def last(self, attempt: Optional[int], reason: str) -> str:
        return self.forge.last(attempt, Reason[reason])

    def restart(self, job: List[Any], plan: Dict[str, Any]) -> str:
        repository, number, attempt = job
        return self._with_token.restart((repository, number, attempt), Leaving(**plan))

    def end(self, job: List[Any], restarts: int) -> bool:
        repository, number, attempt = job
        return self._with_token.end((repository, number, attempt), restarts)

    def runner_stopped(self) -> None:
        self._with_token.runner_stopped()

    def inherit(self, stays: bool, allowed: float) -> str:
        return self._with_token.inherit(stays, allowed)

    def clean_up(self) -> None:
        """Deregisters the runner if the agent, however it ended, did not. Reports the end of an
        agent that could not, as it was killed or hung."""
        if self._over is None and self._beat:
            self.say("crashed", why="the agent has ended while %s" % self._beat[0].phase.value)
        if not self.gone:
            leave_list(NOWHERE, self.leave, self.say, CLEAN_UP_SECONDS, self.leave())


class _Ended(Child):
    """Stands for a runner that the agent has stopped: the guard need not stop it."""

    def __init__(self) -> None:
        pass

    def quit(self, seconds: float) -> bool:
        return True


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers each connection's request, a line of JSON, with a line of JSON."""

    daemon_threads = True

    def __init__(self, folder: Path, answer: Callable[[Dict[str, Any]], Any]) -> None:
        self.answer = answer
        path = folder / SOCKET
        if path.exists():
            path.unlink()
        super().__init__(str(path), _Request)
        path.chmod(0o666)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() < CROWD


class _Request(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        try:
            response = {"answer": self.server.answer(json.loads(self.rfile.readline(LINE)))}
        except Exception as error:
            response = {"error": "%s: %s" % (type(error).__name__, error)}
        try:
            self.wfile.write(json.dumps(response).encode() + b"\n")
        except OSError:  # the caller is gone
            pass


def take(secret: Path) -> Dict[str, str]:
    """Reads and removes the files that the first container has left; texts by name. Raises
    OSError."""
    files = {path.name: path.read_text("utf-8") for path in secret.iterdir() if path.is_file()}
    for name in files:
        (secret / name).unlink()
    return files


def evict(end: Path) -> None:
    """Ends the pod without a permission in the cluster: fills the volume `end`, for which its
    kubelet evicts the pod, with all its containers."""
    (end / "full").write_bytes(os.urandom(EVICTED))


def guard(secret: Path, folder: Path, end: Path) -> int:
    """Runs until SIGTERM, which comes when all other containers have ended; then cleans up. If
    one goes on without the runner's, it cleans up and has the pod evicted. A restarted guard has
    lost everything and answers nobody, so the probe ends the runner's container."""
    terminated = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: terminated.set())
    files = take(secret)
    if SPEC not in files:
        if (folder / SOCKET).exists():
            (folder / SOCKET).unlink()
        agent.write_line(
            b"cml-runner: the guard was restarted and has lost its state, so the pod ends\n"
        )
        if not terminated.wait(UNWELL_SECONDS):
            evict(end)
            terminated.wait()
        return 0
    spec = AgentSpec.from_json(files.pop(SPEC))
    os.environ.update(spec.environment)
    state = Guard(spec, files, agent.say_on_console(spec.secrets()))
    with Server(folder, state.answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while not terminated.wait(LOOK_SECONDS):
            state.report_silence()
            if state.is_overdue():
                state.say("overdue", why="another container keeps the pod, so it is evicted")
                state.clean_up()
                evict(end)
                terminated.wait()
                return 0
        state.clean_up()
    return 0
