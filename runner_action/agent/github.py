"""A GitHub runner: registers with actions/runner, recognizes its jobs, deregisters. How it
deregisters depends on its token: see `github_removal.py` and `github_token.py`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from shlex import quote
from typing import Any, Dict, List, Optional, Tuple

from .events import RUN_LIMIT, Event, JobFinished, JobStarted, Online, Settled
from .forge import Member
from .lifecycle import GONE, REFUSED
from .process import named, run_to_end, session
from .spec import AgentSpec

HOOK = (
    "#!/bin/sh\n{more}printf '%s\\t%s\\t%s\\t%s\\t%s\\n' {event} \"$GITHUB_REPOSITORY\""
    ' "$GITHUB_RUN_ID" "$GITHUB_RUN_ATTEMPT" "$GITHUB_JOB" >> {events} || :\n'
)
SEE = """mount 2>/dev/null | grep -F " on $(pwd -P)/" > {work}/_cml-kept || :
"""
"""Lists what is mounted in the workspace before the job, as by a startup script or pod template."""
MOVE_AWAY = """case "$GITHUB_WORKSPACE" in {work}/*/*)
if cd {work} && [ -s _cml-kept ]; then echo the workspace stays, as something was mounted in it before
else {python} -ISc '
import os,sys
try:os.rename(sys.argv[1],"_cml-done-"+os.urandom(8).hex())
except OSError as error:print("::warning title=cml-runner::the workspace stays:",error)' "$GITHUB_WORKSPACE" || :
fi
esac
"""  # noqa: E501
"""After the last step of a job, makes sure that nothing of it stays for the next one. The workspace
is moved aside, which takes the job no time, and then removed by the agent (`removal.py`);
actions/runner creates a new one. What the job left mounted is moved along, since actions/checkout
empties a workspace that is not a clone, even through mounts. `mv` would not do: it copies what it
cannot move and removes the original, again through mounts."""
CONTAINERS = {
    "started": "timeout 9 docker ps -q >{work}/_cml-ps 2>/dev/null || rm -f {work}/_cml-ps\n",
    "completed": "timeout 9 docker ps -q 2>/dev/null | grep -vxFf {work}/_cml-ps 2>/dev/null |"
    " xargs -r timeout 60 docker rm -f || :\n",
}
"""Removes what a job has left running: the containers that were not there when its steps began. Its
`container:` and `services:` were, and actions/runner removes them itself. Only on a machine of a
cloud: elsewhere others may have started them. A Docker that hangs must not hold up a job, and what
could not be listed then is not removed."""
RUNNING = "Z: Running job: "
ONLINE, SETTLED = "Listening for Jobs", "completed with result:"
REMOVED = (
    "The runner no longer exists on the server",
    "registration has been deleted from the server",
)
"""Parts of lines of actions/runner: it has been given a job (whose hook comes seconds later, when
its actions are downloaded), it has a session, its job is over, it is no longer registered
(Runner.cs, JobDispatcher.cs, MessageListener.cs)."""
AGAIN = "Session Conflict", "unknown error code: 6"
"""Parts of lines of run-helper.sh, which ends with 0 though the listener may be started again: it
found a session of its own, or has new settings. It starts the listener again itself after the exit
codes 2, 3 and 4, and passes on 7 (src/Misc/layoutroot/run-helper.sh.template)."""
WORKER = b"Runner.Worker"
"""In the command line of the process that runs a job."""


class Forge(Member):
    """`folder` holds actions/runner. Subclasses know how to remove the runner."""

    command = ("./run.sh",)

    def __init__(
        self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]
    ) -> None:
        super().__init__(spec, folder, env, identity)
        self._place = path = spec.repository_url.split("//", 1)[-1].split("/", 1)[-1]
        if not path.startswith("enterprises/"):
            path = ("repos/" if "/" in path else "orgs/") + path
        self._listed = "/%s/actions/runners/%%d" % path
        self._registered = folder.parent / "registered"
        self._again = self._removed = False

    # --- becoming a runner

    def join(self) -> Optional[str]:
        """Registers with the registration token, which is passed in the environment and never in
        argv. A just-in-time runner is already registered."""
        spec = self._spec
        if spec.jit_config:
            return None
        # A half registration's .runner, .credentials and .credentials_rsaparams: config.sh does
        # not configure a runner twice.
        for file in self._folder.glob(".[cr][ru][en]*"):
            file.unlink()
        argv = [
            "./config.sh",
            "--unattended",
            "--replace",
            "--url",
            spec.repository_url,
            "--name",
            spec.name,
        ]
        argv += ["--labels", ",".join(spec.labels), "--work", "_work", *spec.options]
        env = {**self._env, "ACTIONS_RUNNER_INPUT_TOKEN": spec.registration_token or ""}
        failed = run_to_end(
            argv + (["--ephemeral"] if spec.single else []),
            self._folder,
            env,
            120,
            **self._identity,
        )
        if not self._assigned(fresh=True) and not failed:
            failed = "config.sh wrote no .runner"
        return failed

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """The listener's environment: run.sh must pass signals on and report that a version is
        refused; the just-in-time configuration, again not in argv; and hooks around each job,
        which write to `events`.

        https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/run-scripts
        """
        added = {
            "RUNNER_MANUALLY_TRAP_SIG": "1",
            "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1",
        }
        if self._spec.jit_config:
            added["ACTIONS_RUNNER_INPUT_JITCONFIG"] = self._spec.jit_config
        hooks.mkdir(exist_ok=True)
        for event, more in (("started", SEE), ("completed", MOVE_AWAY)):
            script = hooks / ("job-%s.sh" % event)
            # The workspace of a single job is removed with its machine, or with the whole folder.
            kept = self._spec.single or self._spec.keep
            reused = self._spec.cloud not in ("", "kubernetes") and not self._spec.single
            containers = CONTAINERS[event] if reused else ""
            text = HOOK.replace("{more}", containers + ("" if kept else more))
            paths = {"work": quote(str(self._folder / "_work")), "python": quote(sys.executable)}
            script.write_text(text.format(event=event, events=quote(str(events)), **paths))
            script.chmod(0o755)
            added["ACTIONS_RUNNER_HOOK_JOB_%s" % event.upper()] = str(script)
        return {**self._env, **added}

    # --- its jobs

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        if len(words) != 5:
            return []
        kind, repository, run, attempt, name = words
        job = "%s of run %s, attempt %s" % (name, run, attempt)
        if kind != "started":
            return [JobFinished(at, job)]
        number = re.compile("[0-9]{1,15}").fullmatch
        ref = (repository, int(run), int(attempt)) if number(run) and number(attempt) else None
        # The launcher's own run started just before this machine.
        return [
            JobStarted(
                at,
                job,
                run_ends=born + RUN_LIMIT if run == str(self._spec.launch_run) else None,
                ref=ref,
            )
        ]

    def works(self, leader: int) -> bool:
        alive = session(leader)
        return not any(alive.values()) or bool(named(WORKER, alive))

    def outputs(self, leader: int) -> List[int]:
        """actions/runner reads workflow commands from the output of its worker's children."""
        alive = session(leader)
        parents = named(WORKER, alive)
        return [pid for pid in alive if alive[pid] in parents]

    def heard(self, line: str, at: float) -> List[Event]:
        self._again = self._again or any(words in line for words in AGAIN)
        self._removed = self._removed or any(words in line for words in REMOVED)
        if RUNNING in line:
            return [JobStarted(at, line.split(RUNNING)[1])]
        if ONLINE in line:
            self._again = self._removed = False
            return [Online(at)]
        return [Settled(at)] if SETTLED in line else []

    def ended(self, code: int) -> Tuple[int, bool]:
        return 5 if self._again else code, self._removed

    # --- leaving

    def leave(self, timeout: float = 10) -> str:
        try:
            runner = self._id()
            if not runner:
                return GONE
            status, text = self._remove(runner, timeout)
            if status == 422 or "running a job" in text:
                return REFUSED
            return GONE if status in (200, 204, 404) else "HTTP %d" % status
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)

    def _remove(self, runner: int, timeout: float) -> Tuple[int, str]:
        """Status and text of the response. Raises OSError."""
        raise NotImplementedError

    def _id(self) -> int:
        """The runner's id; 0 before it has one."""
        return self._spec.runner_id or self._assigned().get("agentId", 0)

    def _assigned(self, fresh: bool = False) -> Dict[str, int]:
        """The runner's id and pool; empty before it has them. They are read from the file that
        `config.sh` writes (with a byte order mark), but only before the runner first starts: after
        that any job may have written it. `fresh`: it has just run. The disk may be full."""
        file = self._registered
        try:
            if fresh or not (self.ids or file.exists() or (file.parent / "runner.pid").exists()):
                config = json.loads((self._folder / ".runner").read_text("utf-8-sig"))
                self.ids = {name: config[name] for name in ("agentId", "poolId") if name in config}
                file.write_text(json.dumps(self.ids))
            self.ids = self.ids or json.loads(file.read_text())
        except (OSError, ValueError):
            pass
        return self.ids
