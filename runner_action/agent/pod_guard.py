"""What a pod's guard does: it holds the tokens, makes the calls that need one, and looks after
the agent.

It is a container of its own. What others can ask of it is by a socket, and less than the agent
itself could do with a token: about this runner, and what its end interrupts.
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
from .lifecycle import GONE, Leaving, Phase, Reason, State
from .process import Child
from .spec import AgentSpec
from .watchdog import CLEAN_UP_SECONDS, Say, leave_list

SPEC, SOCKET = "spec.json", "socket"
NOWHERE = Path("/nowhere")
LINE = 1 << 20
"""Bytes of a question at most."""
CROWD = 32
"""Questions at once at most."""


class Guard:
    """What it knows of its runner, and what it does for whoever asks. `scripts`: texts by name,
    for the agent; `now`: the monotonic clock."""

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
        self._turn = threading.Lock()

    def _member(self) -> forge.Member:
        return forge.member(self.spec, NOWHERE / "runner", {}, {})

    def answer(self, question: Dict[str, Any]) -> Any:
        """Whoever is in the pod may ask how the agent is, and the first one how to begin, when
        there is no job yet; all else is for who has that answer. Raises PermissionError, or what
        an unfit question leads to.
        """
        call = question.pop("call")
        key = question.pop("key", "")
        if call == "watch":
            return self.watch(**question)
        if call == "start":
            return self.start()
        if not hmac.compare_digest(str(key).encode(), self._key.encode()):
            raise PermissionError("only the agent may ask that")
        calls: Dict[str, Callable[..., Any]] = {
            "beat": self.beat,
            "claimed": self.claimed,
            "joined": self.joined,
            "last": self.last,
            "leave": self.leave,
            "restart": self.restart,
            "waiting": self.waiting,
        }
        return calls[call](**question)

    def start(self) -> Dict[str, Any]:
        """All that the agent has to know, once: none of the user's tokens."""
        with self._turn:
            if self._given:
                raise PermissionError("the agent has begun")
            self._given = True
        kept = dataclasses.replace(self.spec, api_token=None, removal_token=None)
        return {"spec": kept.to_json(), "scripts": self.scripts, "key": self._key}

    def joined(self, told: Dict[str, int]) -> None:
        """The runner's id, and its pool if it has one, once: told before the runner first
        starts."""
        with self._turn:
            if not self.spec.runner_id:
                self.spec = dataclasses.replace(self.spec, runner_id=int(told["agentId"]))
                self.forge = self._member()
                self.forge.told = {name: int(number) for name, number in told.items()}

    def beat(self, phase: str, reason: Optional[str], since: float, born: float) -> None:
        why = Reason[reason] if reason else None
        self._beat = State(Phase(phase), float(since), float(born), why), self.now()

    def watch(self, full: bool = False) -> Optional[str]:
        """Why the runner's container must end, or None. `full`: its disk is."""
        if not self._given:
            return "no agent came" if self.now() - self._began > lifecycle.SILENCE else None
        state, at = self._beat or (None, self._began)
        policy = lifecycle.policy_of(self.spec)
        return lifecycle.watchdog(state, at, self.now(), policy, bool(full))

    def claimed(self, leaving: bool) -> bool:
        """Whether a launch counts on the runner; told, with it, that it must not from now on, if
        it leaves."""
        self.forge.retire(None if leaving else _Ended())
        return self.forge.claimed

    def leave(self) -> str:
        outcome = self.forge.leave()
        self.gone = self.gone or outcome == GONE
        return outcome

    def waiting(self) -> Ref:
        return self.forge.waiting()

    def last(self, attempt: Optional[int], reason: str) -> str:
        return self.forge.last(attempt, Reason[reason])

    def restart(self, job: List[Any], plan: Dict[str, Any]) -> str:
        repository, number, attempt = job
        return self.forge.restart((repository, number, attempt), Leaving(**plan))

    def clean_up(self) -> None:
        """After the agent, however it ended."""
        if not self.gone:
            leave_list(NOWHERE, self.leave, self.say, CLEAN_UP_SECONDS, self.leave())


class _Ended(Child):
    """Of a runner that the agent has stopped, as far as the guard need know."""

    def __init__(self) -> None:
        pass

    def quit(self, seconds: float) -> bool:
        return True


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers a line by a line, both JSON."""

    daemon_threads = True

    def __init__(self, folder: Path, answer: Callable[[Dict[str, Any]], Any]) -> None:
        self.answer = answer
        path = folder / SOCKET
        if path.exists():
            path.unlink()
        super().__init__(str(path), _Question)
        path.chmod(0o666)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() < CROWD


class _Question(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self) -> None:
        assert isinstance(self.server, Server)
        try:
            told = {"answer": self.server.answer(json.loads(self.rfile.readline(LINE)))}
        except Exception as error:
            told = {"error": "%s: %s" % (type(error).__name__, error)}
        try:
            self.wfile.write(json.dumps(told).encode() + b"\n")
        except OSError:  # whoever asked is gone
            pass


def take(told: Path) -> Dict[str, str]:
    """What the first container left, by name; nothing of it is there afterwards. Raises OSError."""
    files = {path.name: path.read_text("utf-8") for path in told.iterdir() if path.is_file()}
    for name in files:
        (told / name).unlink()
    return files


def guard(told: Path, folder: Path) -> int:
    """Until SIGTERM, which comes when the runner's container has ended; then it cleans up.
    Started again it knows nothing, and answers nobody: so the probe ends the runner's container."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    files = take(told)
    if SPEC not in files:
        if (folder / SOCKET).exists():
            (folder / SOCKET).unlink()
        print(
            "cml-runner: the guard was started again, and knows nothing any more: the pod ends",
            flush=True,
        )
        asked.wait()
        return 0
    spec = AgentSpec.from_json(files.pop(SPEC))
    os.environ.update(spec.environment)
    made = Guard(spec, files, agent.say_on_console(spec))
    with Server(folder, made.answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked.wait()
        made.clean_up()
    return 0
