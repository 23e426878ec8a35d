"""Asking GitHub's REST API: again after what passes by itself, patiently where it limits, only
for what has changed."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import requests
from github import Auth, Github, GithubException, GithubRetry
from github.GithubException import RateLimitExceededExceedsMaxWait
from github.Requester import Requester
from urllib3 import BaseHTTPResponse

from runner_action.errors import ForgeError
from runner_action.forges.github.answers import RateLimited, refusal
from runner_action.forges.github.app import Installation
from runner_action.forges.github.levels import Level, level_of, root_of
from runner_action.forges.trust import bundle
from runner_action.model import App, Repository, Secret
from runner_action.waiting import Clock, SystemClock

# PyGithub prints its warnings to standard error by itself; what they say is told by the errors
# here, with what to do.
logging.getLogger("github").handlers[:] = [logging.NullHandler()]
log = logging.getLogger(__name__)
PAGE = 100
SILENT = 5.0
"""Seconds of a pause that nobody need be told of."""


@dataclass(frozen=True)
class Patience:
    """How long GitHub's limits are waited for: until a time of the clock, and for `least`
    seconds even after it, as for taking back."""

    clock: Clock = field(default_factory=SystemClock)
    until: float | None = None
    least: float = 60.0
    answer: int = 15
    """Seconds that one answer may take."""

    @property
    def left(self) -> float:
        return (
            max(self.until - self.clock.monotonic(), self.least)
            if self.until is not None
            else self.least
        )


class Limits(GithubRetry):
    """PyGithub's own way, which knows GitHub's limits; but it says that it waits, and never
    waits longer than anybody does here."""

    def __init__(self, patience: Patience = Patience(), **more: Any) -> None:
        self.patience = patience
        super().__init__(**more)

    def new(self, **more: Any) -> Limits:
        return super().new(patience=self.patience, **more)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """429 without a word on how long: as GitHub asks, a minute."""
        return super().get_retry_after(response) or (
            self.secondary_rate_wait if response.status == 429 else None
        )

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        seconds = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        if response and seconds > self.patience.left:
            raise RateLimitExceededExceedsMaxWait(
                response.status, {}, dict(response.headers), wait=seconds
            )
        if seconds > SILENT:
            log.warning("GitHub limits how often it may be asked: waiting for %d s.", seconds)
        self.patience.clock.sleep(seconds)


@dataclass(frozen=True)
class Known:
    """An answer, and the tag by which GitHub says that it is still the same. Such a question
    costs nothing of the hourly limit."""

    tag: str
    answer: Any


class Asking:
    """About one repository, organisation or enterprise. Safe to use from several threads: each
    has its own client, as PyGithub's holds one connection."""

    def __init__(
        self,
        repository: Repository,
        credentials: Secret | App,
        api_url: str,
        certificates: str | None,
        patience: Patience,
    ) -> None:
        self.level: Level = level_of(repository)
        self._by_app = isinstance(credentials, App)
        self._patience = patience
        self._api = api_url
        # Some tries for what passes by itself (7 s in all); no pauses between calls, of which a
        # launch makes a handful.
        retry = Limits(
            patience,
            total=4,
            backoff_factor=0.5,
            status_forcelist=[429, *range(500, 600)],
            raise_on_status=False,
        )
        self._options: dict[str, Any] = {
            "base_url": api_url,
            "retry": retry,
            "verify": bundle(certificates, self) or True,
            "per_page": PAGE,
            "timeout": patience.answer,
            "seconds_between_requests": None,
            "seconds_between_writes": None,
            "user_agent": "cml-runner",
        }
        self._auth = (
            Installation(credentials, root_of(repository), self._options)
            if isinstance(credentials, App)
            else Auth.Token(credentials.reveal())
        )
        self._local = threading.local()
        self._known: dict[str, Known] = {}
        self._closed = (0.0, ForgeError(""))
        """Until when there is no use in asking, and why."""

    @property
    def _github(self) -> Github:
        if not hasattr(self._local, "github"):
            self._local.github = Github(auth=self._auth, **self._options)
        return cast("Github", self._local.github)

    def ask(self, verb: str, path: str, body: object | None = None) -> Any:
        """The answer. What was asked before is asked for only if it has changed."""
        known = self._known.get(path) if verb == "GET" else None
        with self._translated(f"{verb} {path}"):
            headers = {"If-None-Match": known.tag} if known else None
            status, told, text = self._github.requester.requestJson(
                verb, path, headers=headers, input=body
            )
            if known and status == 304:
                return known.answer
            answer = _parsed(text, status)
            if status >= 400:
                raise Requester.createException(status, told, answer)
        if verb == "GET" and "etag" in told:
            self._known[path] = Known(told["etag"], answer)
        return answer

    def scopes_of(self, token: Secret) -> list[str]:
        """Of a classic token; none of any other. Raises AuthError if it is no good.
        https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps"""
        with self._translated("GET /"):
            client = Github(auth=Auth.Token(token.reveal()), **self._options)
            status, headers, text = client.requester.requestJson("GET", "/")
            if status >= 400:
                raise Requester.createException(status, headers, _parsed(text, status))
        return re.findall(r"[^,\s]+", headers.get("x-oauth-scopes", ""))

    def pages(self, path: str, key: str) -> list[dict[str, Any]]:
        """All entries of a list, page by page, one after the other, as GitHub asks."""
        found: list[dict[str, Any]] = []
        joined = "&" if "?" in path else "?"
        for page in range(1, 10_000):
            told = self.ask("GET", f"{path}{joined}per_page={PAGE}&page={page}")
            found += told[key]
            if len(told[key]) < PAGE or len(found) >= told["total_count"]:
                break
        return found

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """No exception of the library leaves this block, and no token: only GitHub's own message
        is passed on."""
        until, why = self._closed
        if self._patience.clock.monotonic() < until:
            raise why
        try:
            yield
        except GithubException as error:
            found = refusal(error, doing, self.level, self._by_app)
            if isinstance(found, RateLimited) and found.wait:
                self._closed = (self._patience.clock.monotonic() + found.wait, found)
            raise found from None
        except (requests.RequestException, json.JSONDecodeError) as error:
            said = f"GitHub could not be reached for {doing}: {type(error).__name__}."
            raise ForgeError(
                said,
                "Check the network, the proxy, `ca-certificates` and `repo`: its API is looked for"
                f" at {self._api}.",
            ) from None
        except RuntimeError:  # PyGithub's, for a redirection elsewhere
            raise ForgeError(
                f"{self._api} sends {doing} elsewhere.",
                "Check `repo`, and whether it begins with `https`.",
            ) from None


def _parsed(text: str, status: int) -> Any:
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        if status >= 400:  # a gateway's page
            return {}
        raise
