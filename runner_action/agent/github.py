"""What a machine must do to be a GitHub runner: join with actions/runner, know its jobs, leave the list, restart a run."""

from __future__ import annotations

import calendar
import json
import re
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Any, Dict, List, Optional, Tuple

from . import restart as policy
from .events import Event, JobFinished, JobStarted, Online, Settled
from .forge import Member
from .lifecycle import GONE, REFUSED, RUN_LIMIT, Leaving
from .process import Child, run_to_end
from .spec import AgentSpec

HOOK = (
    '#!/bin/sh\n{more}printf \'%s\\t%s\\t%s\\t%s\\t%s\\n\' {event} "$GITHUB_REPOSITORY" "$GITHUB_RUN_ID" "$GITHUB_RUN_ATTEMPT" "$GITHUB_JOB" >> {events} || :\n'
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
"""
"""At the end of the last step of a job: nothing of it stays for the next one. The workspace is moved, which takes
none of the job's time, and then removed by the agent (`removal.py`); actions/runner makes another one. What the job
left mounted goes along: the next job must not find it, since actions/checkout empties a workspace that is no clone,
through mounts. Not by `mv`, which copies what cannot be moved, and then removes it, through mounts as well."""
ONLINE, SETTLED = "Listening for Jobs", "completed with result:"
REMOVED = ("The runner no longer exists on the server", "registration has been deleted from the server")
"""Lines of actions/runner: it has a session, its job is over, it is not known any more (Runner.cs, JobDispatcher.cs, MessageListener.cs)."""
LEAVING = 120
"""Seconds within which a runner has left, or stays."""
CODES = {"0 return code": 0, "terminated": 1, "retryable": 2, "Session Conflict": 5}
"""Words of run-helper.sh, which keeps the listener's exit code to itself."""


def exit_code(line: str) -> Optional[int]:
    """The listener's own exit code, where a line of run-helper.sh tells it."""
    if "xit" not in line:
        return None
    number = re.search(r"code: (\d+)", line)
    if number:
        return int(number.group(1))
    return next((code for text, code in CODES.items() if "listener exit with " in line and text in line), None)


class Forge(Member):
    """`folder` holds actions/runner."""

    command = ("./run.sh",)

    def __init__(self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]) -> None:
        super().__init__(spec, folder, env, identity)
        path = spec.repository_url.split("//", 1)[-1].split("/", 1)[-1]
        self._listed = "/%s/actions/runners/%%d" % (path if path.startswith("enterprises/") else ("repos/" if "/" in path else "orgs/") + path)
        # An organisation's runner works for many repositories: the launch's, then the job's.
        self._repository = spec.launch_project or path
        self._code: Optional[int] = None
        self._removed = False

    # --- becoming a runner

    def join(self) -> Optional[str]:
        """Registers with the registration token, which travels in the environment and never in argv. None if all went well.

        A just-in-time runner is registered already.
        """
        spec = self._spec
        if spec.jit_config:
            return None
        argv = ["./config.sh", "--unattended", "--replace", "--url", spec.repository_url, "--name", spec.name]
        argv += ["--labels", ",".join(spec.labels), "--work", "_work", *spec.options]
        return self._config(argv + (["--ephemeral"] if spec.single else []), spec.registration_token, 120)

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """Of the listener: let run.sh pass signals on and tell when the version is refused; the just-in-time configuration,
        again not in argv; and a script around every job that writes to `events`.

        https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/run-scripts
        """
        added = {"RUNNER_MANUALLY_TRAP_SIG": "1", "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1"}
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
        ref = (repository, int(run), int(attempt)) if run.isdigit() and attempt.isdigit() else None
        # The launcher's own run began just before this machine.
        return [JobStarted(at, job, run_ends=born + RUN_LIMIT if run == str(self._spec.launch_run) else None, ref=ref)]

    def heard(self, line: str, at: float) -> List[Event]:
        code = exit_code(line)
        self._code = self._code if code is None else code
        self._removed = self._removed or any(words in line for words in REMOVED)
        return [Online(at)] if ONLINE in line else [Settled(at)] if SETTLED in line else []

    def ended(self, code: int) -> Tuple[int, bool]:
        told, self._code = self._code, None
        return code if told is None else told, self._removed

    # --- leaving

    def retire(self, child: Optional[Child]) -> bool:
        """With a mark, so that no launch counts on it from now on: the answer has all labels."""
        path = self._listed % (self._spec.runner_id or self._agent_id() or 0) + "/labels"
        return not self.is_claimed("POST", path, {"labels": ["cml-claim-leaving-%d" % (time.time() + LEAVING)]})

    def leave(self, timeout: float = 10) -> str:
        """Takes the runner off the forge's list: GONE (absent is as good), REFUSED, or what went wrong. Never raises.

        With a token for the API by one DELETE; without one by `config.sh remove`, whose token is good for an hour.
        """
        try:
            runner = self._spec.runner_id or self._agent_id()
            if runner is None:
                return GONE
            if self._spec.api_token:
                status, _ = self.ask("DELETE", self._listed % runner, timeout=timeout)
                return {204: GONE, 404: GONE, 422: REFUSED}.get(status, "HTTP %d" % status)
            failed = self._config(["./config.sh", "remove"], self._spec.removal_token, timeout)
            return REFUSED if failed and "running a job" in failed else failed or GONE
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)

    def _config(self, argv: List[str], token: Optional[str], timeout: float) -> Optional[str]:
        return run_to_end(argv, self._folder, {**self._env, "ACTIONS_RUNNER_INPUT_TOKEN": token or ""}, timeout, **self._identity)

    def _agent_id(self) -> Optional[int]:
        """The runner's id from the file that `config.sh` leaves (written with a byte order mark); None before that."""
        try:
            return int(json.loads((self._folder / ".runner").read_text("utf-8-sig"))["agentId"])
        except (OSError, ValueError, KeyError):
            return None

    # --- restarting

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        run = self._spec.launch_run
        return ("", run, None) if run and policy.waits_for(self.run(run), self._spec.labels) else None

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        spec, (repository, run_id, attempt) = self._spec, job
        self._repository = repository or self._repository
        launch = policy.Launch(spec.launch_job, spec.launch_job_name)
        return policy.restart(self, run_id, attempt, spec.restart_limit, launch, spec.name, plan.gentle, plan.restart, restarts=plan.restarts)

    def run(self, run_id: int) -> policy.Run:
        path = self._path("runs/%d", run_id)
        told, jobs, page = self.get(path), [], 1  # type: Any, List[policy.Job], int
        while len(jobs) == (page - 1) * 100:
            jobs += [
                policy.Job(one["id"], one["name"], one["status"], one["conclusion"] or "", one["runner_name"] or "", tuple(one["labels"]))
                for one in self.get("%s/jobs?per_page=100&page=%d" % (path, page))["jobs"]
            ]
            page += 1
        created = calendar.timegm(time.strptime(told["created_at"], "%Y-%m-%dT%H:%M:%SZ"))
        return policy.Run(run_id, told["run_attempt"], told["status"] == "completed", time.time() - created, tuple(jobs))

    def cancel(self, run_id: int, force: bool) -> Optional[str]:
        return self.post(self._path("runs/%d/%s", run_id, "force-cancel" if force else "cancel"))

    def rerun(self, what: str, run_id: int, job_id: Optional[int]) -> Optional[str]:
        if what == policy.LAUNCH_JOB:
            return self.post(self._path("jobs/%s/rerun", job_id))
        return self.post(self._path("runs/%d/%s", run_id, "rerun-failed-jobs" if what == policy.FAILED_JOBS else "rerun"))

    def _path(self, path: str, *parts: Any) -> str:
        return "/repos/%s/actions/" % self._repository + path % parts
