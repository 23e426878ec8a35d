"""Entry point of the agent in a pod: `hand-over` in a container that ends before the others start,
`guard` in the sidecar, `run` and `watchdog` in the container of the jobs.

Only the first one has the Secret. It writes the program to where nothing can be written later, and
everything else to a volume in memory that only the guard has, and which the guard empties before it
accepts requests. Calls that need one of the user's tokens are made by the guard: the agent requests
them over a socket, and never learns the token. The guard reads nothing that a job can write, and
the two containers share only that socket.
"""

from __future__ import annotations

import contextlib
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
from . import forge, process, restarting
from .events import Ref
from .plan import Leaving
from .pod_guard import NOWHERE, SOCKET, SPEC, guard
from .process import Child
from .reasons import Reason
from .restart import FAILED_JOBS
from .run import BEAT, Agent
from .spec import AgentSpec
from .watchdog import Say, disk_full

INSTANCE = "@instance@"
"""A placeholder in a runner's name for the end of the pod's name (`bootstrap.INSTANCE`)."""
PR_SET_DUMPABLE = 4
PROGRAM = "agent.pyz"
CERTIFICATES = "ca.pem"
STARTUP = "startup.sh"
HOOKS = "ACTIONS_RUNNER_CONTAINER_HOOKS"
JOB_TEMPLATE = "ACTIONS_RUNNER_CONTAINER_HOOK_TEMPLATE"
POD_SECONDS = "ACTIONS_RUNNER_PREPARE_JOB_TIMEOUT_SECONDS"
BUNDLE_OF_SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
LATE = (
    *("_strptime", "calendar", "locale", "stringprep", "unicodedata"),
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig"),
    *("linecache", "tokenize", "traceback"),
)
"""Modules that Python would import only when first needed: for a date, a host, an error."""
PATIENCE = 15.0
"""Seconds for a response of the guard, whose own calls have ten."""


# --- the first container


def hand_over(bundle: Path, program: Path, secret: Path, environ: Dict[str, str]) -> int:
    """Unpacks the bundle: what jobs may see into the folder `program`, the rest into `secret`. The
    pod's name completes the runner's."""
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
        put(secret / name, text, 0o600)
    return 0


def put(path: Path, content: bytes, mode: int) -> None:
    """Writes a file atomically."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(0o600)
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)


# --- the runner's container


class Link:
    """The connection to the guard. `key`: the guard gives it to the first caller and to nobody
    else; it is in no file, and jobs cannot read the agent's memory."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / SOCKET)
        self.key = ""

    def ask(self, call: str, seconds: float = PATIENCE, **arguments: Any) -> Any:
        """The guard's answer. Raises OSError if there is no guard, or if it reports an error."""
        request = {"call": call, "key": self.key, **arguments}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(self.path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as reader:
                line = reader.readline()
        if not line:
            raise OSError("the guard does not respond")
        response = json.loads(line)
        if "error" in response:
            raise OSError(response["error"])
        return response["answer"]

    def start(self) -> Dict[str, Any]:
        """Waits for the guard. Returns spec and scripts."""
        while True:
            try:
                answer: Dict[str, Any] = self.ask("start")
                self.key = answer.pop("key")
                return answer
            except (FileNotFoundError, ConnectionError, PermissionError):
                time.sleep(0.1)


class Guarded(forge.Member):
    """A mixin before the class of a forge, by which the guard makes the calls."""

    link: Link

    def join(self) -> Optional[str]:
        failed = super().join()
        if self.ids:
            self.link.ask("joined", ids=self.ids)
        return failed

    def retire(self, child: Optional[Child]) -> bool:
        if self._spec.forge == "github":
            return not self.is_claimed("POST", "")
        return super().retire(child)

    def is_claimed(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> bool:
        """The guard chooses the call."""
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
        except Exception:  # only the annotation lacks it
            return ""

    def waiting(self) -> Ref:
        job = self.link.ask("waiting")
        return (job[0], job[1], job[2]) if job else None

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        try:
            fields = dataclasses.asdict(plan)
            return str(self.link.ask("restart", plan.seconds + PATIENCE, job=job, plan=fields))
        except Exception as error:
            return "not restarted: %s: %s" % (type(error).__name__, error)

    def end(self, job: Tuple[str, int, Optional[int]], restarts: int) -> bool:
        try:
            return bool(self.link.ask("end", job=job, restarts=restarts))
        except Exception:  # tried again by `restart`
            return False

    def runner_stopped(self) -> None:
        with contextlib.suppress(Exception):
            self.link.ask("runner_stopped")

    def inherit(self, stays: bool, seconds: float) -> str:
        try:
            wait = max(seconds, 0) + PATIENCE
            what = self.link.ask("inherit", wait, stays=stays, allowed=seconds)
            self.claimed = stays and what == FAILED_JOBS
            return str(what)
        except Exception:
            return ""


class JobPods(forge.Member):
    """A mixin before GitLab's class, where each job is a pod: gives it what the launcher chose for
    jobs. https://docs.gitlab.com/runner/executors/kubernetes/#overwrite-generated-pod-specifications
    """

    def config(self, docker: bool) -> Dict[str, Any]:
        config: Dict[str, Any] = super().config(docker)  # type: ignore[misc]
        if "kubernetes" in config:
            # Seconds in which a node may have to be created first.
            config["kubernetes"]["poll_timeout"] = int(self._env[POD_SECONDS])
        return config

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        environ = super().environment(hooks, events)
        with open(str(self._folder / "config.toml"), "a", encoding="utf-8") as file:
            file.write(pod_spec(Path(self._env[JOB_TEMPLATE]).read_text("utf-8")))
        return environ


def pod_spec(template: str) -> str:
    """The end of GitLab Runner's configuration, for a template as GitHub's hooks have it.
    https://docs.gitlab.com/runner/executors/kubernetes/#configuration-settings"""
    told = json.loads(template)
    for container in told["spec"]["containers"]:
        container["name"] = "build"
    lines = [
        "[runners.feature_flags]",
        "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION = true",
        "[[runners.kubernetes.pod_spec]]",
        'name = "size"',
        'patch_type = "strategic"',
        "patch = %s" % json.dumps(json.dumps(told["spec"])),
    ]
    for kind, pairs in told["metadata"].items():  # labels, annotations
        lines += ["[runners.kubernetes.pod_%s]" % kind]
        lines += ["%s = %s" % (json.dumps(key), json.dumps(pairs[key])) for key in pairs]
    return "\n".join(lines) + "\n"


class InPod(Agent):
    """The agent in a pod: it is never started again, and its heartbeats go to the guard."""

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
        # The guard restarts, if it has a token.
        self._leave = restarting.Leave(self)

    @property
    def forge(self) -> forge.Member:
        return self._guarded

    @forge.setter
    def forge(self, member: forge.Member) -> None:
        """Replaces the member with one whose calls are made by the guard. Only the constructor
        sets it, before the member is used."""
        pods = self.spec.forge == "gitlab" and JOB_TEMPLATE in self.env
        mixins = (Guarded, JobPods) if pods else (Guarded,)
        kind = type("Forge", (*mixins, type(member)), {"link": self.link})
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
    """As process 1: passes signals on to the agent, reaps orphans, and ends with the agent, by
    which all remaining processes end. Returns the agent's exit code."""
    child = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: pass_on(number, child) if child else sys.exit(0))
    child = os.fork()
    if not child:
        os._exit(alive(home, link, environ))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def pass_on(number: int, child: int) -> None:
    """Sends a signal to the agent: tried again, as the cluster sends it only once."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            os.kill(child, number)
            return
        time.sleep(0.1)


def alive(home: Path, link: Link, environ: Dict[str, str]) -> int:
    """Runs the agent and returns its exit code."""
    start = link.start()
    spec = AgentSpec.from_json(start["spec"])
    for name, text in start["scripts"].items():
        (home / name).touch(0o700)
        (home / name).write_text(text, "utf-8")
    os.environ.update(spec.environment)
    environ = with_home(home, environ)
    process.PASSED_ON += environ
    log = agent.say_on_console(spec.secrets())

    def say(stage: str, **facts: Any) -> None:
        if stage in ("configured", "failed") and (home / STARTUP).exists():
            (home / STARTUP).unlink()  # it may hold secrets
        log(stage, **facts)

    hooks = environ.get(HOOKS)
    if hooks and spec.forge == "github" and not os.path.exists(hooks):
        say(
            "failed",
            why="this image has no container hooks at %s:"
            " use cml-runner's image as `cloud-image`, or set %s" % (hooks, HOOKS),
        )
        return Reason.START_FAILED.exit_code
    # A pod sees all devices of its node, also those that are not its own.
    sysfs = Path("/sys") if environ.get("CML_RUNNER_GPU") else NOWHERE
    try:
        living = InPod(link, spec, home, environ, say, sysfs)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: living.signal())
        return living.live()
    except BaseException as error:  # the parent's code must not run in this process
        say("crashed", why="%s: %s" % (type(error).__name__, error))
        return 1
    finally:
        with contextlib.suppress(Exception):
            link.ask("over")


def with_home(home: Path, environ: Dict[str, str]) -> Dict[str, str]:
    """`environ`, with a HOME if the image does not know this user."""
    try:
        pwd.getpwuid(os.geteuid())
        return environ
    except KeyError:
        (home / "user").mkdir(exist_ok=True)
        return {**environ, "HOME": str(home / "user")}


def watchdog(link: Link) -> int:
    """One check, run as the cluster's liveness probe. 1: the container must end, also if the guard
    is gone; the cluster ends it after several in a row. Then the guard cleans up."""
    try:
        why = link.ask("watch", full=disk_full(Path.cwd()))
    except (OSError, ValueError) as error:
        why = "the guard is gone: %s" % error
    if why:
        agent.write_line(b"cml-runner: %s\n" % str(why).encode())
    return int(bool(why))


def close_memory() -> None:
    """Makes sure that only root can read /proc of this process, or trace it. Raises OSError."""
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("jobs could read the agent's memory: prctl failed")


def main(argv: List[str], environ: Dict[str, str]) -> int:
    """Entry point of the program `sys.argv[0]`. Imports everything that is needed later."""
    close_memory()
    for name in LATE:
        importlib.import_module(name)
    command = argv[0]
    folders = [Path(folder) for folder in argv[1:]]
    if command == "hand-over":
        return hand_over(Path(sys.argv[0]), folders[0], folders[1], environ)
    if command == "guard":
        return guard(folders[0], folders[1], folders[2])
    link = Link(folders[0])
    return watchdog(link) if command == "watchdog" else run(Path.cwd(), link, environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
