"""The machine's side of a forge, implemented in `github.py` and `gitlab.py`."""

from __future__ import annotations

import importlib
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .events import Event
from .lifecycle import Leaving, Reason
from .process import Child
from .spec import AgentSpec


class Member:
    """One runner as a member of its forge. `folder` holds the runner program; `env` and `identity`
    are those of the job user."""

    credentials = "Authorization", "Bearer %s"
    command: Tuple[str, ...] = ()
    claimed = False
    """Whether a launch counted on the runner when that was last checked."""

    def __init__(
        self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._env = env
        self._identity = identity
        self.ids: Dict[str, int] = {}
        """What the forge assigned to the runner when it registered: on GitHub `agentId` and
        `poolId`."""

    def join(self) -> Optional[str]:
        """Does what is needed before the runner starts, such as registering it. Returns None, or
        what failed."""
        raise NotImplementedError

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """The environment of the runner. `events`: the file to which the hooks of its jobs write
        lines of fields separated by tabs."""
        raise NotImplementedError

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        """The events that such a line means. `born`: when this machine started."""
        raise NotImplementedError

    def heard(self, line: str, at: float) -> List[Event]:
        """The events that a line of the runner's own output means."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Removes what a finished job left behind, where no hook of the job does that."""

    def ended(self, code: int) -> Tuple[int, bool]:
        """The exit code in terms of actions/runner, and whether the runner is no longer
        registered."""
        return code, False

    def retire(self, child: Optional[Child]) -> bool:
        """Stops new jobs for an idle runner. Returns False if it has just been given one, or if a
        launch counts on it. Without `child` the runner is busy and leaves anyway; then this only
        keeps launches from counting on it."""
        return True

    def is_claimed(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> bool:
        """Whether the response to this call holds a claim of a launch that has not expired
        (`runner_action/claim.py`). Without a response, False."""
        try:
            claims = re.findall(
                r"cml-claim-\w{10}-(\d+)",
                self.ask(method, path, body)[1] if self._spec.api_token else "",
            )
        except Exception:
            claims = []
        self.claimed = any(int(until) > time.time() for until in claims)
        return self.claimed

    def leave(self, timeout: float = 10) -> str:
        """Deregisters the runner. Returns GONE (also if it was not registered), REFUSED, or what
        went wrong. Never raises."""
        raise NotImplementedError

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        """What to restart if this machine ends before it has had a job. May raise anything."""
        return None

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        """Why a job that ends for this reason is not restarted after this attempt; empty if it
        may be."""
        return ""

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """Restarts what a `JobStarted` event named. Returns what was done, or why nothing was.
        Never raises."""
        return "not restarted: restarting is switched off"

    def ask(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]] = None,
        timeout: float = 10,
        login: str = "",
    ) -> Tuple[int, str]:
        """Sends a request to the forge's API, or to another URL. Returns status and text. `login`
        replaces the token."""
        name, value = self.credentials
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "cml-runner",
        }
        if self._spec.api_token:
            login = login or value % self._spec.api_token
        url = path if "://" in path else self._spec.api_url + path
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(url, data, headers, method=method)
            if login:  # redirects do not get it
                request.add_unredirected_header(name, login)
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode("utf-8", "replace")

    def get(self, path: str) -> Any:
        """The response's JSON. Raises OSError for any status but 200."""
        status, text = self.ask("GET", path)
        if status != 200:
            raise OSError("HTTP %d for GET %s" % (status, path))
        return json.loads(text)

    def post(self, path: str) -> Optional[str]:
        """Returns None if accepted, else why not."""
        status, text = self.ask("POST", path)
        return None if status in (201, 202) else "HTTP %d: %s" % (status, text[:200])


def module_of(spec: AgentSpec) -> str:
    """The name of the module with the `Forge` for this spec, which depends on its tokens."""
    if spec.api_token:
        return spec.forge + "_token"
    return spec.forge + ("_removal" if spec.removal_token else "")


def member(spec: AgentSpec, *rest: Any) -> Member:
    """The `Member` for this spec. A machine has only the modules that it needs."""
    module = importlib.import_module("." + module_of(spec), __package__)
    forge: Member = module.Forge(spec, *rest)
    return forge
