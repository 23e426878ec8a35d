"""The machine's side of a forge, implemented in `github.py` and `gitlab.py`."""

from __future__ import annotations

import importlib
import json
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urljoin, urlsplit

from .calls import Plain, call
from .events import Event
from .process import Child
from .reasons import Reason
from .spec import AgentSpec

OPENER = urllib.request.build_opener(Plain)


class Member:
    """One runner as a member of its forge. `folder` holds the runner program; `env` and `identity`
    are those of the job user."""

    credentials = "Authorization", "Bearer %s"
    command: Tuple[str, ...] = ()
    unpack = "tar -xzf -"
    """The command that stores what is downloaded."""
    headers: Any = {}
    """Of the last response."""
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
        what failed; then it is called again, if that may pass (`become.FINAL`)."""
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

    def works(self, leader: int) -> bool:
        """Whether this machine shows that a job is being worked on; True if that cannot be known.
        `leader`: the pid of the runner's session."""
        return True

    def outputs(self, leader: int) -> List[int]:
        """The pids of the processes whose output is the log of the current job."""
        return []

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
        """Whether a launch counts on the runner; only with a token (`tokens.py`)."""
        return False

    def leave(self, timeout: float = 10) -> str:
        """Deregisters the runner. Returns GONE (also if it was not registered), REFUSED, or what
        went wrong. Never raises."""
        raise NotImplementedError

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        """Why a job that ends for this reason is not restarted after this attempt; empty if it
        may be."""
        return ""

    def ask(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]] = None,
        timeout: float = 10,
        login: str = "",
        tag: str = "",
    ) -> Tuple[int, str]:
        """Sends a request to the forge's API, or to another URL. Returns status and text. `login`:
        the value of the header by which it authenticates; `tag`: the ETag of an earlier response. A
        redirect is followed within the same host, with method and body, as for a repository that
        was renamed (301 and 307), each in half the time. Raises as `call`.
        https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api"""
        url = path if "://" in path else self._spec.api_url + path
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "cml-runner",
            self.credentials[0]: login,
            "If-None-Match": tag,
        }
        sent = {name: text for name, text in headers.items() if text}
        request = urllib.request.Request(url, data, sent, method=method)
        status, self.headers, text = call(OPENER, request, timeout)
        there = urljoin(url, self.headers.get("Location", ""))
        moved = status in (301, 302, 307, 308) and timeout > 1
        if moved and urlsplit(there)[:2] == urlsplit(url)[:2]:
            return self.ask(method, there, body, timeout / 2, login, tag)
        return status, text


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
