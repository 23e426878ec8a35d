"""What a machine must do to be a GitHub runner: join with actions/runner, know its jobs from the hooks, leave the list."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional

from .process import run_to_end
from .spec import AgentSpec

ONLINE = "Listening for Jobs"
"""actions/runner prints this line once it has a session (Runner.Listener/Runner.cs)."""
GONE, BUSY = "gone", "busy"
"""What `leave` answers when the runner is off the list, and when a job holds it there; anything else is what went wrong."""
HOOK = """#!/bin/sh
printf '%s\\t%s\\t%s\\t%s\\n' {event} "$GITHUB_RUN_ID" "$GITHUB_RUN_ATTEMPT" "$GITHUB_JOB" >> '{events}'
"""


class GitHub:
    """Membership of one runner. `folder` holds actions/runner; `env` and `identity` are the job user's."""

    command = ("./run.sh",)

    def __init__(self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]) -> None:
        self._spec, self._folder, self._env, self._identity = spec, folder, env, identity

    def join(self) -> Optional[str]:
        """Registers with the registration token, which travels in the environment and never in argv. None if all went well.

        A just-in-time runner is registered already.
        """
        spec = self._spec
        if spec.jit_config:
            return None
        argv = ["./config.sh", "--unattended", "--replace", "--url", spec.repository_url, "--name", spec.name]
        argv += ["--labels", ",".join(spec.labels), "--work", "_work"]
        return self._config(argv + (["--ephemeral"] if spec.single else []), spec.registration_token, 120)

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """Of the listener: let run.sh pass signals on; the just-in-time configuration, again not in argv; and a script
        around every job that writes to `events`.

        https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/run-scripts
        """
        added = {"RUNNER_MANUALLY_TRAP_SIG": "1"}
        if self._spec.jit_config:
            added["ACTIONS_RUNNER_INPUT_JITCONFIG"] = self._spec.jit_config
        hooks.mkdir(exist_ok=True)
        for event in ("started", "completed"):
            script = hooks / ("job-%s.sh" % event)
            script.write_text(HOOK.format(event=event, events=events))
            script.chmod(0o755)
            added["ACTIONS_RUNNER_HOOK_JOB_%s" % event.upper()] = str(script)
        return {**self._env, **added}

    def leave(self, timeout: float = 10) -> str:
        """Takes the runner off the forge's list: GONE (absent is as good), BUSY, or what went wrong. Never raises.

        With a token for the API by one DELETE; without one by `config.sh remove`, whose token is good for an hour.
        """
        try:
            runner = self._spec.runner_id or self._agent_id()
            if runner is None:
                return GONE
            if self._spec.api_token:
                return self._delete(runner, timeout)
            failed = self._config(["./config.sh", "remove"], self._spec.removal_token, timeout)
            return BUSY if failed and "running a job" in failed else failed or GONE
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

    def _delete(self, runner: int, timeout: float) -> str:
        spec = self._spec
        path = spec.repository_url.split("//", 1)[1].split("/", 1)[1]
        url = "%s/repos/%s/actions/runners/%d" % (spec.api_url, path, runner)
        headers = {"Authorization": "Bearer %s" % spec.api_token, "Accept": "application/vnd.github+json", "User-Agent": "cml-runner"}
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers), timeout=timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            return {404: GONE, 422: BUSY}.get(error.code, "HTTP %d" % error.code)
        return GONE
