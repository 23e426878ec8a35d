"""Entry of the agent in a pod: `guard BUNDLE-folder` in the sidecar that holds the Secret, `run` and `watchdog` in the container of the jobs.

The guard hands the agent over, the runner's container takes it up and removes the spec before there is a job, and when that container has ended,
however it ended, the guard takes the runner off the forge's list unless that has been done. The end of the pod is the end of the machine.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, Dict, List

from . import __main__ as agent
from . import lifecycle, process
from .spec import AgentSpec
from .watchdog import clean_up, disk_full, first_look, read_beat

INSTANCE = "@instance@"
"""Stands in a runner's name for the end of the pod's name, as in the launcher (`bootstrap.INSTANCE`, `model.runner_name`)."""
PR_SET_DUMPABLE = 4
LIMITS, READY = "limits.json", "ready"
HOOKS = "ACTIONS_RUNNER_CONTAINER_HOOKS"
BUNDLE_OF_SYSTEM = "/etc/ssl/certs/ca-certificates.crt"


# --- the sidecar


def guard(bundle: Path, home: Path, environ: Dict[str, str]) -> int:
    """Hands over, waits for SIGTERM, which comes when the runner's container has ended, and cleans up."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    text = hand_over(bundle, home, environ)
    asked.wait()
    spec = AgentSpec.from_json(text)
    os.environ.update(spec.environment)
    say = agent.say_on_console(spec)
    clean_up(home, lambda: agent.leave_of(spec, home, environ, say), say)
    return 0


def hand_over(bundle: Path, home: Path, environ: Dict[str, str]) -> str:
    """Unpacks all that the runner's container needs, the mark last; gives the spec. Its name becomes that of this pod. A guard that was started again
    hands nothing over: by now there are jobs."""
    with zipfile.ZipFile(str(bundle)) as packed:
        files = {name: packed.read(name).decode() for name in packed.namelist()}
    files["spec.json"] = files["spec.json"].replace(INSTANCE, environ.get("INSTANCE_ID", "")[-8:].lstrip("-"))
    for name, text in files.items() if not (home / READY).exists() else ():
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o700 if name.endswith(".sh") else 0o600)
        path.write_text(text)
    if "ca.pem" in files and not (home / READY).exists():
        try:
            system = Path(BUNDLE_OF_SYSTEM).read_text()
        except OSError:
            system = ""
        (home / "ca.pem").write_text(system + files["ca.pem"])
    (home / READY).touch()
    return files["spec.json"]


# --- the runner's container


def run(home: Path, environ: Dict[str, str]) -> int:
    """As process 1: passes signals on to the agent, takes up orphans, and ends with the agent, which ends all that is left."""
    child = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(child, number) if child else sys.exit(0))
    child = os.fork()
    if not child:
        os._exit(alive(home, environ))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def alive(home: Path, environ: Dict[str, str]) -> int:
    """The agent's exit code. Its memory, the only place where the tokens still are, is closed to the jobs, which are the same user."""
    close_memory()
    path = home / "spec.json"
    spec = AgentSpec.from_json(path.read_text())
    path.unlink()
    (home / LIMITS).write_text(AgentSpec.from_json(without_secrets(spec)).to_json())
    os.environ.update(spec.environment)
    environ = with_home(home, environ)
    process.PASSED_ON += environ
    shown = agent.say_on_console(spec)

    def say(stage: str, **facts: Any) -> None:
        if stage in ("configured", "failed") and (home / "startup.sh").exists():
            (home / "startup.sh").unlink()  # it may hold secrets
        shown(stage, **facts)

    hooks = environ.get(HOOKS)
    if hooks and spec.forge == "github" and not os.path.exists(hooks):
        say("failed", why="this image has no container hooks at %s: take ours as `cloud-image`, or set %s" % (hooks, HOOKS))
        return lifecycle.Reason.START_FAILED.exit_code
    # A pod sees its node's devices, be they its own or not.
    sysfs = Path("/sys" if environ.get("CML_RUNNER_GPU") else "/nowhere")
    try:
        return agent.live(spec, home, environ, say, sysfs)
    except BaseException:  # told already; nothing of the parent's may run in this process
        return 1


def with_home(home: Path, environ: Dict[str, str]) -> Dict[str, str]:
    """An image that does not know this user has no home for it either."""
    try:
        pwd.getpwuid(os.geteuid())
        return environ
    except KeyError:
        (home / "user").mkdir(exist_ok=True)
        return {**environ, "HOME": str(home / "user")}


def close_memory() -> None:
    """Nobody but root reads /proc of this process, or traces it. Raises OSError."""
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("jobs could read the agent's memory: prctl failed")


def without_secrets(spec: AgentSpec) -> str:
    return AgentSpec(**{**vars(spec), "environment": {}, **dict.fromkeys(SECRETS)}).to_json()


SECRETS = ("download_token", "jit_config", "registration_token", "removal_token", "api_token", "runner_token")


def watchdog(home: Path) -> int:
    """One look, as the cluster's liveness probe. 1: the container must end, and the guard cleans up."""
    if not (home / LIMITS).exists():
        now = time.monotonic()
        return int(now - first_look(home, now) > lifecycle.SILENCE)
    policy, now, beat = lifecycle.policy_of(AgentSpec.from_json((home / LIMITS).read_text())), time.monotonic(), read_beat(home)
    why = lifecycle.watchdog(beat.state if beat else None, beat.at if beat else first_look(home, now), now, policy, disk_full(home))
    if why:
        print("cml-runner: " + why, flush=True)
    return int(why is not None)


def main(argv: List[str], environ: Dict[str, str]) -> int:
    if argv[:1] == ["guard"]:
        return guard(Path(sys.argv[0]), Path(argv[1]), environ)
    return watchdog(Path.cwd()) if argv == ["watchdog"] else run(Path.cwd(), environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
