"""Authentication as a GitHub App: finds its installation, and renews the installation's tokens,
each of which is valid for an hour.

https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/authenticating-as-a-github-app-installation
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from github import Auth, GithubException, GithubIntegration

from runner_action.errors import AuthError
from runner_action.model import App


class Installation(Auth.Auth):
    """Shared by all threads. Makes no call before a token is needed. The App's key stays in this
    process."""

    token_type = "token"  # noqa: S105
    _masked_token = "token (removed)"  # noqa: S105

    def __init__(self, app: App, root: str, options: Mapping[str, Any]) -> None:
        """`root`: path of the repository, organisation or enterprise in the API."""
        self._app = app
        self._root = root
        self._options = options
        self._lock = threading.Lock()
        self._auth: Auth.AppInstallationAuth | None = None

    @property
    def token(self) -> str:
        with self._lock:
            self._auth = self._auth or self._look_up()
            return self._auth.token

    def _look_up(self) -> Auth.AppInstallationAuth:
        auth = Auth.AppAuth(self._app.id, self._app.key.reveal())
        integration = GithubIntegration(auth=auth, **self._options)
        path = f"{self._root}/installation"
        try:
            _, installation = integration.requester.requestJsonAndCheck("GET", path)
        except GithubException as error:
            if error.status == 401:
                raise AuthError(
                    "GitHub does not accept the App's key.",
                    "Check that `app-private-key` is a key of `app-id`, and this machine's clock.",
                ) from None
            if error.status == 404:
                raise AuthError(
                    f"App {self._app.id} is not installed on {self._root.lstrip('/')}.",
                    "Install it there, on its page under `Install App`.",
                ) from None
            raise
        if installation.get("suspended_at"):
            raise AuthError(
                f"The installation of App {self._app.id} is suspended.",
                f"See {installation['html_url']}.",
            )
        return auth.get_installation_auth(installation["id"], requester=integration.requester)
