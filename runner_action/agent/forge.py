"""What a forge's machine side can do; `github.py` and `gitlab.py` do it their way. Imports
nothing of theirs."""

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
    """Membership of one runner. `folder` holds the runner program; `env` and `identity` are the
    job user's."""

    credentials = "Authorization", "Bearer %s"
    command: Tuple[str, ...] = ()
    claimed = False
    """Found when it wanted to retire."""

    def __init__(
        self, spec: AgentSpec, folder: Path, env: Dict[str, str], identity: Dict[str, Any]
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._env = env
        self._identity = identity
        self.told: Dict[str, int] = {}
        """What the forge told the runner when it joined: on GitHub `agentId` and `poolId`."""

    def join(self) -> Optional[str]:
        """Everything that has to be done before the runner starts. None if all went well, else
        what did not."""
        raise NotImplementedError

    def environment(self, hooks: Path, events: Path) -> Dict[str, str]:
        """Of the runner. `events`: where its jobs tell of themselves, a line of words parted by
        tabs."""
        raise NotImplementedError

    def hook(self, words: List[str], at: float, born: float) -> List[Event]:
        """What such a line means. `born`: when this machine was."""
        raise NotImplementedError

    def heard(self, line: str, at: float) -> List[Event]:
        """What a line of the runner's own output means."""
        raise NotImplementedError

    def ended(self, code: int) -> Tuple[int, bool]:
        """Exit code in the words of actions/runner, and whether the forge no longer knows the
        runner."""
        return code, False

    def retire(self, child: Optional[Child]) -> bool:
        """No more jobs for an idle runner. False: it has just been given one, or a launch counts
        on it. Without `child`: the runner is busy and leaves all the same; only launches are
        told."""
        return True

    def is_claimed(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> bool:
        """Whether the answer to this call holds a launch's claim that is still good
        (`runner_action/claim.py`). Without an answer: no."""
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
        """Takes the runner off the forge's list: GONE (absent is as good), REFUSED, or what went
        wrong. Never raises."""
        raise NotImplementedError

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        """What must be restarted if this machine ends before it had a job. May raise anything."""
        return None

    def last(self, attempt: Optional[int], reason: Reason) -> str:
        """Why what ends so is not restarted after this attempt; empty if it may be."""
        return ""

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """Restarts what a `JobStarted` event named, and says what was done or why not. Never
        raises."""
        return "not restarted: restarting is switched off"

    def ask(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]] = None,
        timeout: float = 10,
        login: str = "",
    ) -> Tuple[int, str]:
        """One call of the forge's API, or of another address: status and text. `login` in place
        of the token."""
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
            asked = urllib.request.Request(url, data, headers, method=method)
            if login:  # which does not go to where a redirect leads
                asked.add_unredirected_header(name, login)
            with urllib.request.urlopen(asked, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode("utf-8", "replace")

    def get(self, path: str) -> Any:
        """Raises OSError if there is no answer."""
        status, text = self.ask("GET", path)
        if status != 200:
            raise OSError("HTTP %d to GET %s" % (status, path))
        return json.loads(text)

    def post(self, path: str) -> Optional[str]:
        """None: granted; else why not."""
        status, text = self.ask("POST", path)
        return None if status in (201, 202) else "HTTP %d: %s" % (status, text[:200])


def module_of(spec: AgentSpec) -> str:
    """Of this package, by what the machine has to ask the forge with."""
    if spec.api_token:
        return spec.forge + "_token"
    return spec.forge + ("_removal" if spec.removal_token else "")


def member(spec: AgentSpec, *rest: Any) -> Member:
    """Of the forge of the spec; a machine gets only the modules that it needs."""
    module = importlib.import_module("." + module_of(spec), __package__)
    made: Member = module.Forge(spec, *rest)
    return made
