"""What a machine must do to be a GitHub runner: join with actions/runner, know its jobs, leave
the list. By which token it leaves, and what else it can do with that, is in `github_removal.py`
and `github_token.py`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from shlex import quote
from typing import Any, Dict, List, Optional, Tuple

from .events import Event, JobFinished, JobStarted, Online, Settled
from .forge import Member
from .lifecycle import GONE, REFUSED, RUN_LIMIT
from .process import run_to_end
from .spec import AgentSpec

HOOK = (
    "#!/bin/sh\n{more}printf '%s\\t%s\\t%s\\t%s\\t%s\\n' {event} \"$GITHUB_REPOSITORY\""
    ' "$GITHUB_RUN_ID" "$GITHUB_RUN_ATTEMPT" "$GITHUB_JOB" >> {events} || :\n'
)
SEE = """mount 2>/dev/null | grep -F " on $(pwd -P)/" > {work}/_cml-kept || :
"""
"""What is mounted in the workspace before the job, as by a startup script or a pod's template."""
MOVE_AWAY = """case "$GITHUB_WORKSPACE" in {work}/*/*)
if cd {work} && [ -s _cml-kept ]; then echo the workspace stays, for what was mounted in it before
else {python} -ISc '
import os,sys
try:os.rename(sys.argv[1],"_cml-done-"+os.urandom(8).hex())
except OSError as error:print("::warning title=cml-runner::the workspace stays:",error)' "$GITHUB_WORKSPACE" || :
fi
esac
"""  # noqa: E501
"""At the end of the last step of a job: nothing of it stays for the next one. The workspace is
moved, which takes none of the job's time, and then removed by the agent (`removal.py`);
actions/runner makes another one. What the job left mounted goes along: the next job must not
find it, since actions/checkout empties a workspace that is no clone, through mounts. Not by
`mv`, which copies what cannot be moved, and then removes it, through mounts as well."""
ONLINE, SETTLED = "Listening for Jobs", "completed with result:"
REMOVED = (
    "The runner no longer exists on the server",
    "registration has been deleted from the server",
)
"""Lines of actions/runner: it has a session, its job is over, it is not known any more
(Runner.cs, JobDispatcher.cs, MessageListener.cs)."""
CODES = {"0 return code": 0, "terminated": 1, "retryable": 2, "Session Conflict": 5}
"""Words of run-helper.sh, which keeps the listener's exit code to itself."""


def exit_code(line: str) -> Optional[int]:
    """The listener's own exit code, where a line of run-helper.sh tells it."""
    if "xit" not in line:
        return None
    number = re.search(r"code: (\d+)", line)
    if number:
        return int(number.group(1))
    return next(
        (code for text, code in CODES.items() if "listener exit with " in line and text in line),
        None,
    )


class Forge(Member):
    """`folder` holds actions/runner."""

    command = ("./run.sh",)

    def __init__(
        self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]
    ) -> None:
        super().__init__(spec, folder, env, identity)
        self._place = path = spec.repository_url.split("//", 1)[-1].split("/", 1)[-1]
        if not path.startswith("enterprises/"):
            path = ("repos/" if "/" in path else "orgs/") + path
        self._listed = "/%s/actions/runners/%%d" % path
        self._mark = folder.parent / "registered"
        self._code: Optional[int] = None
        self._removed = False

    # --- becoming a runner

    def join(self) -> Optional[str]:
        """Registers with the registration token, which travels in the environment and never in
        argv. None if all went well.

        A just-in-time runner is registered already.
        """
        spec = self._spec
        if spec.jit_config:
            return None
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
        self._known()
        return failed

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """Of the listener: let run.sh pass signals on and tell when the version is refused; the
        just-in-time configuration, again not in argv; and a script around every job that writes
        to `events`.

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
            # A single job's workspace ends with its machine, or with all of the folder.
            text = HOOK.replace("{more}", "" if self._spec.single else more)
            words = {"work": quote(str(self._folder / "_work")), "python": quote(sys.executable)}
            script.write_text(text.format(event=event, events=quote(str(events)), **words))
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
        # The launcher's own run began just before this machine.
        return [
            JobStarted(
                at,
                job,
                run_ends=born + RUN_LIMIT if run == str(self._spec.launch_run) else None,
                ref=ref,
            )
        ]

    def heard(self, line: str, at: float) -> List[Event]:
        code = exit_code(line)
        self._code = self._code if code is None else code
        self._removed = self._removed or any(words in line for words in REMOVED)
        if ONLINE in line:
            return [Online(at)]
        return [Settled(at)] if SETTLED in line else []

    def ended(self, code: int) -> Tuple[int, bool]:
        told = self._code
        self._code = None
        return code if told is None else told, self._removed

    # --- leaving

    def leave(self, timeout: float = 10) -> str:
        """Takes the runner off the list: GONE (absent is as good), REFUSED, or what went wrong.
        Never raises."""
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
        """Status and text of the answer. Raises OSError."""
        raise NotImplementedError

    def _id(self) -> int:
        """Of the runner; 0 before it has one."""
        return self._spec.runner_id or self._known().get("agentId", 0)

    def _known(self) -> Dict[str, int]:
        """The runner's id and pool; nothing before it has them. From the file that `config.sh`
        leaves (written with a byte order mark), but only before the runner's first start: later
        it may be any job's."""
        if not self.told:
            try:
                if not self._mark.exists() and not (self._mark.parent / "runner.pid").exists():
                    told = json.loads((self._folder / ".runner").read_text("utf-8-sig"))
                    self._mark.write_text(
                        json.dumps(
                            {name: told[name] for name in ("agentId", "poolId") if name in told}
                        )
                    )
                self.told = json.loads(self._mark.read_text())
            except (OSError, ValueError):
                pass
        return self.told
