"""What a member of either forge can do with an API token."""

from __future__ import annotations

import contextlib
import json
import re
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Dict, List, Optional, Tuple

from .forge import Member
from .plan import Leaving

LOOK = 1.0
"""Seconds until a request is made again that had no good response."""


class Unexpected(OSError):
    """A response to a GET with another status than 200."""

    def __init__(self, status: int, path: str) -> None:
        super().__init__("HTTP %d for GET %s" % (status, path))
        self.status = status


class WithToken(Member):
    """Before the class of a forge."""

    stopped = False
    """The runner takes no more jobs."""

    def runner_stopped(self) -> None:
        self.stopped = True

    def now(self) -> float:
        """The time by the clock of the server, from its last response: that of this machine may be
        wrong by hours."""
        date = parsedate_tz(self.headers.get("Date", ""))
        return mktime_tz(date) if date else time.time()

    def is_claimed(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> bool:
        """Whether the response to this call holds a claim of a launch that has not expired
        (`runner_action/claim.py`). Without a good response, also after a second request, False."""
        claims: List[str] = []
        for pause in (LOOK, 0.0):
            with contextlib.suppress(Exception):
                status, text = self.ask(method, path, body)
                claims = re.findall(r"cml-claim-\w{10}-(\d+)", text)
                if status < 400:
                    break
            time.sleep(pause)
        self.claimed = any(int(until) > self.now() for until in claims)
        return self.claimed

    def end(self, job: Tuple[str, int, Optional[int]], restarts: int) -> bool:
        """Cancels the run of the job, if nothing else runs in it and if it is to be restarted: the
        job then still runs its last steps. Returns whether it did. Never raises."""
        return False

    def inherit(self, stays: bool, seconds: float) -> str:
        """Restarts, within `seconds`, what other machines of the same run have left to the last,
        which this machine is; it sets `claimed` if that comes to this machine, which it can have
        if it `stays`. Returns what was restarted, or why it was not; empty if nothing was left.
        Never raises."""
        return ""

    def restart(self, job: Tuple[str, int, Optional[int]], plan: Leaving) -> str:
        """Restarts what a `JobStarted` event named. Returns what was done, or why nothing was.
        Never raises."""
        return "not restarted: restarting is switched off"

    def waiting(self) -> Optional[Tuple[str, int, Optional[int]]]:
        """What to restart if this machine ends before it has had a job. May raise anything."""
        return None

    def ask(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]] = None,
        timeout: float = 10,
        login: str = "",
        tag: str = "",
    ) -> Tuple[int, str]:
        """As in Member, with the token if there is no other `login`."""
        login = login or self.credentials[1] % self._spec.api_token
        return super().ask(method, path, body, timeout, login, tag)

    def get(self, path: str, timeout: float = 10) -> Any:
        """The response's JSON. Raises OSError for any status but 200."""
        status, text = self.ask("GET", path, timeout=timeout)
        if status != 200:
            raise Unexpected(status, path)
        return json.loads(text)

    def post(self, path: str) -> Optional[str]:
        """Returns None if accepted, else why not."""
        status, text = self.ask("POST", path)
        return None if status in (201, 202) else "HTTP %d: %s" % (status, text[:200])
