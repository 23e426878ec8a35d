"""Entry of the agent in a pod: `hand-over` in a container that ends before the others begin,
`guard` in the sidecar, `run` and `watchdog` in the container of the jobs.

Only the first has the Secret. It puts the program where nothing can write any more, and what
else it was told into memory that only the guard has, which empties that before it can be asked
anything. What calls need a token of the user's are the guard's: the agent asks for them by a
socket, and never learns the token. Nothing that a job can write is read by the guard, and the
two containers share no more than that socket.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import io
import json
import os
import pwd
import signal
import socket
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from . import __main__ as agent
from . import forge, process
from .events import Ref
from .lifecycle import Leaving, Reason
from .pod_guard import NOWHERE, SOCKET, SPEC, guard
from .process import Child
from .run import BEAT, Agent
from .spec import AgentSpec
from .watchdog import Say, disk_full

INSTANCE = "@instance@"
"""Stands in a runner's name for the end of the pod's name, as in the launcher
(`bootstrap.INSTANCE`, `model.runner_name`)."""
PR_SET_DUMPABLE = 4
PROGRAM = "agent.pyz"
CERTIFICATES = "ca.pem"
STARTUP = "startup.sh"
HOOKS = "ACTIONS_RUNNER_CONTAINER_HOOKS"
BUNDLE_OF_SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
LATE = (
    *("_strptime", "calendar", "locale", "stringprep", "unicodedata"),
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig"),
    *("linecache", "tokenize", "traceback"),
)
"""What Python itself would load only when it is first needed: to read a date, to look up a host,
to tell of an error."""
PATIENCE = 15.0
"""Seconds within which the guard answers, unless it is told of more: a call of its own has ten."""


# --- the first container


def hand_over(bundle: Path, program: Path, told: Path, environ: Dict[str, str]) -> int:
    """Parts what may be seen by jobs from what may not. The runner's name becomes that of this
    pod."""
    with zipfile.ZipFile(str(bundle)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    packed_again = io.BytesIO()
    with zipfile.ZipFile(packed_again, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in [name for name in files if name == "__main__.py" or name.startswith("agent/")]:
            archive.writestr(name, files.pop(name))
    put(program / PROGRAM, packed_again.getvalue(), 0o444)
    if CERTIFICATES in files:
        try:
            system = Path(BUNDLE_OF_SYSTEM).read_bytes()
        except OSError:
            system = b""
        put(program / CERTIFICATES, system + files.pop(CERTIFICATES), 0o444)
    instance = environ.get("INSTANCE_ID", "")[-8:].lstrip("-")
    files[SPEC] = files[SPEC].replace(INSTANCE.encode(), instance.encode())
    for name, text in files.items():
        put(told / name, text, 0o600)
    return 0


def put(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.touch(0o600)
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)


# --- the runner's container


class Link:
    """The way to the guard. `key`: what it tells the first who asks, and nobody else; it is in
    no file, and the agent's memory is closed to jobs."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / SOCKET)
        self.key = ""

    def ask(self, call: str, seconds: float = PATIENCE, **words: Any) -> Any:
        """Raises OSError: no guard, or not its answer."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(seconds)
            asking.connect(self.path)
            asking.sendall(json.dumps({"call": call, "key": self.key, **words}).encode() + b"\n")
            with asking.makefile("rb") as reading:
                line = reading.readline()
        if not line:
            raise OSError("the guard does not answer")
        told = json.loads(line)
        if "error" in told:
            raise OSError(told["error"])
        return told["answer"]

    def start(self) -> Dict[str, Any]:
        """Waits for the guard."""
        while True:
            try:
                told: Dict[str, Any] = self.ask("start")
                self.key = told.pop("key")
                return told
            except (FileNotFoundError, ConnectionError, PermissionError):
                time.sleep(0.1)


class Guarded(forge.Member):
    """A member whose calls are the guard's, before the class of its forge."""

    link: Link

    def join(self) -> Optional[str]:
        failed = super().join()
        if self.told:
            self.link.ask("joined", told=self.told)
        return failed

    def retire(self, child: Optional[Child]) -> bool:
        return (
            not self.is_claimed("POST", "")
            if self._spec.forge == "github"
            else super().retire(child)
        )

    def is_claimed(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> bool:
        """The guard knows the call."""
        try:
            self.claimed = bool(self.link.ask("claimed", leaving=method != "GET"))
        except Exception:
            self.claimed = False
        return self.claimed

    def leave(self, timeout: float = 10) -> str:
        try:
            return str(self.link.ask("leave"))
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        try:
            return str(self.link.ask("last", attempt=attempt, reason=reason.name))
        except Exception:  # for a mark only
            return ""

    def waiting(self) -> Ref:
        job = self.link.ask("waiting")
        return (job[0], job[1], job[2]) if job else None

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        try:
            told = dataclasses.asdict(plan)
            return str(self.link.ask("restart", plan.restart + PATIENCE, job=job, plan=told))
        except Exception as error:
            return "not restarted: %s: %s" % (type(error).__name__, error)


class InPod(Agent):
    """It is never started again, and its signs of life go to the guard."""

    def __init__(
        self,
        link: Link,
        spec: AgentSpec,
        home: Path,
        environ: Dict[str, str],
        say: Say,
        sysfs: Path,
    ) -> None:
        self.link = link
        super().__init__(spec, home, environ, say, sysfs=sysfs)

    @property
    def forge(self) -> forge.Member:
        return self._guarded

    @forge.setter
    def forge(self, made: forge.Member) -> None:
        """The same member, whose calls are the guard's: as the agent is made, before anybody has
        it."""
        kind = type("Forge", (Guarded, type(made)), {"link": self.link})
        self._guarded: forge.Member = kind(self.spec, self.home / "runner", self.env, self.identity)

    def _resume(self) -> bool:
        return False

    def _beat(self) -> None:
        if self._beaten and self.now() - self._beaten < BEAT:
            return
        self._beaten = self.now()
        state = self.state
        reason = state.reason.name if state.reason else None
        try:
            self.link.ask(
                "beat",
                BEAT,
                phase=state.phase.value,
                reason=reason,
                since=state.since,
                born=state.born,
            )
        except OSError as error:
            self.say("no-heartbeat", why=str(error))


def run(home: Path, link: Link, environ: Dict[str, str]) -> int:
    """As process 1: passes signals on to the agent, takes up orphans, and ends with the agent,
    which ends all that is left."""
    child = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(child, number) if child else sys.exit(0))
    child = os.fork()
    if not child:
        os._exit(alive(home, link, environ))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def alive(home: Path, link: Link, environ: Dict[str, str]) -> int:
    """The agent's exit code."""
    told = link.start()
    spec = AgentSpec.from_json(told["spec"])
    for name, text in told["scripts"].items():
        (home / name).touch(0o700)
        (home / name).write_text(text, "utf-8")
    os.environ.update(spec.environment)
    environ = with_home(home, environ)
    process.PASSED_ON += environ
    shown = agent.say_on_console(spec)

    def say(stage: str, **facts: Any) -> None:
        if stage in ("configured", "failed") and (home / STARTUP).exists():
            (home / STARTUP).unlink()  # it may hold secrets
        shown(stage, **facts)

    hooks = environ.get(HOOKS)
    if hooks and spec.forge == "github" and not os.path.exists(hooks):
        say(
            "failed",
            why="this image has no container hooks at %s: take ours as `cloud-image`, or set %s"
            % (hooks, HOOKS),
        )
        return Reason.START_FAILED.exit_code
    # A pod sees its node's devices, be they its own or not.
    sysfs = Path("/sys") if environ.get("CML_RUNNER_GPU") else NOWHERE
    try:
        living = InPod(link, spec, home, environ, say, sysfs)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: living.ask())
        return living.live()
    except BaseException as error:  # nothing of the parent's may run in this process
        say("crashed", why="%s: %s" % (type(error).__name__, error))
        return 1


def with_home(home: Path, environ: Dict[str, str]) -> Dict[str, str]:
    """An image that does not know this user has no home for it either."""
    try:
        pwd.getpwuid(os.geteuid())
        return environ
    except KeyError:
        (home / "user").mkdir(exist_ok=True)
        return {**environ, "HOME": str(home / "user")}


def watchdog(link: Link) -> int:
    """One look, as the cluster's liveness probe. 1: the container must end, and the guard cleans
    up. Without a guard there is nobody who would see that it ends."""
    try:
        why = link.ask("watch", full=disk_full(Path.cwd()))
    except (OSError, ValueError) as error:
        why = "the guard is gone: %s" % error
    if why:
        print("cml-runner: %s" % why, flush=True)
    return int(bool(why))


def close_memory() -> None:
    """Nobody but root reads /proc of this process, or traces it. Raises OSError."""
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("jobs could read the agent's memory: prctl failed")


def main(argv: List[str], environ: Dict[str, str]) -> int:
    """Of the program `sys.argv[0]`. Nothing is loaded later that is not loaded here."""
    close_memory()
    for name in LATE:
        importlib.import_module(name)
    word = argv[0]
    places = [Path(place) for place in argv[1:]]
    if word == "hand-over":
        return hand_over(Path(sys.argv[0]), places[0], places[1], environ)
    if word == "guard":
        return guard(places[0], places[1])
    link = Link(places[0])
    return watchdog(link) if word == "watchdog" else run(Path.cwd(), link, environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
