"""Calls to GitLab's REST API through python-gitlab: gitlab.com and self-managed instances, at the
root of their host or below it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gitlab
import requests

from runner_action import retrying
from runner_action.forges.gitlab.errors import translated
from runner_action.forges.trust import bundle
from runner_action.model import Repository, Secret

TRIES = 6
"""About six seconds in all, because the library doubles its pause each time. By default it would
try for a hundred seconds."""


class Api:
    """The API of the instance that has the repository."""

    def __init__(
        self,
        repository: Repository,
        token: Secret,
        url: str | None,
        certificates: str | None,
    ) -> None:
        """`url`: where the CI job says the API is; None: look it up."""
        self._repository = repository
        self._token = token
        self._given_url = url
        self._bundle = bundle(certificates, self)
        self._locating = threading.Lock()
        self._asking = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self.base}/api/v4"

    @property
    def base(self) -> str:
        """Address of the instance: the shortest beginning of the repository's address below which
        GitLab's API answers. Looked up once, whichever thread needs it first."""
        with self._locating:
            return self._base

    @cached_property
    def _base(self) -> str:
        if self._given_url:
            return self._given_url.removesuffix("/api/v4")
        parts = self._repository.path.split("/")
        bases = [
            "/".join([self._repository.server, *parts[:number]]) for number in range(len(parts))
        ]
        if len(bases) == 1 or bases[0].endswith("//gitlab.com"):
            return bases[0]
        return next(filter(self._answers, bases), bases[0])

    def _answers(self, base: str) -> bool:
        """Sends no token, because the server there may not be GitLab."""
        with translated("looking up its API"):
            response = self.fetch(f"{base}/api/v4/version", allow_redirects=False)
        content = response.headers.get("Content-Type", "")
        return response.status_code in (200, 401, 403) and "json" in content

    def fetch(self, url: str, **options: Any) -> requests.Response:
        """A GET without the token."""
        with retrying.session(public=True) as session:
            return session.get(
                url, timeout=retrying.SECONDS, verify=self._bundle or True, **options
            )

    @cached_property
    def _client(self) -> gitlab.Gitlab:
        return self._client_with(self._token)

    def _client_with(self, token: Secret) -> gitlab.Gitlab:
        # `keep_base_url`: GitLab's links to further pages may name a host that cannot be reached
        # from here.
        return gitlab.Gitlab(
            self.base,
            private_token=token.reveal(),
            ssl_verify=self._bundle or True,
            timeout=retrying.SECONDS,
            per_page=100,
            retry_transient_errors=True,
            keep_base_url=True,
            user_agent="cml-runner",
            # The library's own session would send the token to any host that a redirect names:
            # requests drops only `Authorization`, and GitLab's header is PRIVATE-TOKEN.
            session=retrying.Session(),
        )

    def get(self, path: str, **query: Any) -> Any:
        with translated(f"GET {path}"):
            return self._client.http_get(path, query_data=query, max_retries=TRIES)

    def get_as(self, token: Secret, path: str) -> Any:
        """With another token than the launch's."""
        with translated(f"GET {path}"):
            return self._client_with(token).http_get(path, max_retries=TRIES)

    def entries(self, path: str) -> list[dict[str, Any]]:
        """All entries of a list."""
        with translated(f"GET {path}"):
            entries = self._client.http_list(
                path, iterator=True, query_data={"per_page": 100}, max_retries=TRIES
            )
            return [dict(entry) for entry in entries]

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Not retried: if only the response was lost, a second call would create a second
        runner."""
        with translated(f"POST {path}"):
            return self._client.http_post(path, post_data=dict(body), retry_transient_errors=False)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        with translated(f"PUT {path}"):
            return self._client.http_put(path, post_data=dict(body), max_retries=TRIES)

    def delete(self, path: str) -> None:
        with translated(f"DELETE {path}"):
            self._client.http_delete(path, max_retries=TRIES)

    @property
    def version(self) -> tuple[int, ...]:
        """Major and minor number. Looked up once, as the base is."""
        with self._asking:
            return self._version

    @cached_property
    def _version(self) -> tuple[int, ...]:
        major, minor = self.get("/version")["version"].split(".")[:2]
        return int(major), int(minor)
