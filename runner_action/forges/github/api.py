"""Calls to GitHub's REST API. Retries what passes by itself, waits out rate limits, and downloads
only what has changed."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

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

# PyGithub prints its warnings to standard error. The errors raised here say the same, and what to
# do about it.
logging.getLogger("github").handlers[:] = [logging.NullHandler()]
log = logging.getLogger(__name__)
MOVED = (301, 302, 303, 307, 308)
REDIRECTS = 5
"""Requests at most for one call."""
PAGE = 100
SILENT = 5.0
"""Seconds. A pause that is no longer than this is not logged."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for GitHub's rate limits: until a time of the clock, and after it for
    another `least` seconds, as a rollback needs."""

    clock: Clock = field(default_factory=SystemClock)
    until: float | None = None
    least: float = 60.0
    answer: int = 15
    """Seconds that one response may take."""

    @property
    def left(self) -> float:
        """Seconds."""
        if self.until is None:
            return self.least
        return max(self.until - self.clock.monotonic(), self.least)


class Limits(GithubRetry):
    """PyGithub's retries, which know GitHub's rate limits. These also log that they wait, and
    never wait longer than the launch does."""

    def __init__(self, patience: Patience = Patience(), **options: Any) -> None:
        self.patience = patience
        super().__init__(**options)

    def new(self, **options: Any) -> Limits:
        return super().new(patience=self.patience, **options)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """A 429 without `Retry-After`: a minute, as GitHub recommends."""
        seconds = super().get_retry_after(response)
        if not seconds and response.status == 429:
            return self.secondary_rate_wait
        return seconds

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        seconds = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        if response and seconds > self.patience.left:
            raise RateLimitExceededExceedsMaxWait(
                response.status, {}, dict(response.headers), wait=seconds
            )
        if seconds > SILENT:
            log.warning("GitHub's rate limit is reached: waiting for %d s.", seconds)
        self.patience.clock.sleep(seconds)


@dataclass(frozen=True)
class Cached:
    """A response, and its ETag. GitHub does not count a request against the hourly limit if the
    response is still the same."""

    etag: str
    response: Any


class Api:
    """The API for one repository, organisation or enterprise. Safe to use from several threads:
    each has its own client, because PyGithub's holds one connection."""

    def __init__(
        self,
        repository: Repository,
        credentials: Secret | App,
        url: str,
        certificates: str | None,
        patience: Patience,
    ) -> None:
        self.url = url
        self.level: Level = level_of(repository)
        self.root = root_of(repository)
        self._by_app = isinstance(credentials, App)
        self._patience = patience
        # Four retries (7 s in all). No pauses between calls: a launch makes only a few.
        retry = Limits(
            patience,
            total=4,
            backoff_factor=0.5,
            status_forcelist=[429, *range(500, 600)],
            raise_on_status=False,
        )
        self._options: dict[str, Any] = {
            "base_url": url,
            "retry": retry,
            "verify": bundle(certificates, self) or True,
            "per_page": PAGE,
            "timeout": patience.answer,
            "seconds_between_requests": None,
            "seconds_between_writes": None,
            "user_agent": "cml-runner",
        }
        self._auth: Auth.Auth
        if isinstance(credentials, App):
            self._auth = Installation(credentials, self.root, self._options)
        else:
            self._auth = Auth.Token(credentials.reveal())
        self._local = threading.local()
        self._cache: dict[str, Cached] = {}
        self._limited = (0.0, ForgeError(""))
        """Until when GitHub refuses every call, and the error that said so."""

    @property
    def _github(self) -> Github:
        if not hasattr(self._local, "github"):
            self._local.github = Github(auth=self._auth, **self._options)
        return cast("Github", self._local.github)

    def call(self, verb: str, path: str, body: object | None = None) -> Any:
        """The parsed response. A GET that was made before is conditional."""
        cached = self._cache.get(path) if verb == "GET" else None
        with self._translated(f"{verb} {path}"):
            status, headers, text = self._request(verb, path, cached, body)
            if cached and status == 304:
                return cached.response
            response = _parsed(text, status)
            if status >= 400:
                raise Requester.createException(status, headers, response)
        if verb == "GET" and "etag" in headers:
            self._cache[path] = Cached(headers["etag"], response)
        return response

    def _request(
        self, verb: str, path: str, cached: Cached | None, body: object | None
    ) -> tuple[int, dict[str, Any], str]:
        """Status, headers and text of the response. A repository that was renamed or transferred
        is redirected, by 301 for a GET, which the library follows, and by 307 for the others. Any
        redirect to another host is an error.
        https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects
        """
        for _ in range(REDIRECTS):
            status, headers, text = self._github.requester.requestJson(
                verb,
                path,
                headers={"If-None-Match": cached.etag} if cached else None,
                input=body,
            )
            if status not in MOVED:
                return status, headers, text
            path = urljoin(self.url, headers.get("location", ""))
            if urlsplit(path)[:2] != urlsplit(self.url)[:2]:
                break
        raise RuntimeError(f"HTTP {status}")

    def scopes_of(self, token: Secret) -> list[str]:
        """The scopes of a classic token; of any other, none. Raises AuthError for a token that
        GitHub refuses.
        https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps"""
        with self._translated("GET /"):
            client = Github(auth=Auth.Token(token.reveal()), **self._options)
            status, headers, text = client.requester.requestJson("GET", "/")
            if status >= 400:
                raise Requester.createException(status, headers, _parsed(text, status))
        return re.findall(r"[^,\s]+", headers.get("x-oauth-scopes", ""))

    def pages(self, path: str, key: str) -> list[dict[str, Any]]:
        """All entries of a list. Requests one page after the other, as GitHub recommends."""
        entries: list[dict[str, Any]] = []
        joint = "&" if "?" in path else "?"
        for page in range(1, 10_000):
            response = self.call("GET", f"{path}{joint}per_page={PAGE}&page={page}")
            entries += response[key]
            if len(response[key]) < PAGE or len(entries) >= response["total_count"]:
                break
        return entries

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        """Raises ForgeError in place of the library's exceptions, with GitHub's own message and
        without the token."""
        until, error_then = self._limited
        if self._patience.clock.monotonic() < until:
            raise error_then
        try:
            yield
        except GithubException as error:
            reason = refusal(error, call, self.level, self._by_app)
            if isinstance(reason, RateLimited) and reason.wait:
                self._limited = (self._patience.clock.monotonic() + reason.wait, reason)
            raise reason from None
        except (requests.RequestException, json.JSONDecodeError) as error:
            raise ForgeError(
                f"Cannot reach GitHub ({call}): {type(error).__name__}.",
                "Check the network, the proxy, `ca-certificates` and `repo`. The API is expected"
                f" at {self.url}.",
            ) from None
        except RuntimeError:  # for a redirect to another host
            raise ForgeError(
                f"{self.url} redirects {call} to another host.",
                "Check `repo`, and whether it begins with `https`.",
            ) from None


def _parsed(text: str, status: int) -> Any:
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        if status >= 400:  # a gateway's page
            return {}
        raise
