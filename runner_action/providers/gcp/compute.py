"""The account, the address of Compute Engine, and the SDK's clients for it, each built at its first
use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from google.api_core.retry import Retry

from runner_action.providers.base import address_in
from runner_action.providers.gcp.credentials import Account, account
from runner_action.providers.gcp.errors import passes
from runner_action.providers.gcp.options import GcpOptions

API = "https://compute.googleapis.com"
CALL: dict[str, Any] = {"timeout": 20.0, "retry": None}
"""For calls that the SDK must not retry. The timeout: seconds without an answer."""
SAFE: dict[str, Any] = {
    "timeout": 20.0,
    "retry": Retry(passes, initial=0.3, maximum=3.0, timeout=30.0),
}
"""For calls that the SDK may retry, also after a timeout: reads, and deletions by name."""


class Compute:
    """Compute Engine in one project. `who` returns the account, when it is first needed; `api`:
    the address."""

    def __init__(self, who: Callable[[], Account], api: str = API) -> None:
        self._who = who
        self.api = api
        self._account: Account | None = None
        self._built: dict[type[Any], Any] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_environment(cls, options: GcpOptions, environ: Mapping[str, str]) -> Compute:
        """By the variables that gcloud reads: GOOGLE_APPLICATION_CREDENTIALS, and another address
        of the API."""
        parts = urlsplit(address_in(environ, "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", API))
        return cls(
            lambda: account(options, environ.get("GOOGLE_APPLICATION_CREDENTIALS")),
            f"{parts.scheme}://{parts.netloc}",
        )

    @property
    def account(self) -> Account:
        with self._lock:
            self._account = self._account or self._who()
            return self._account

    @property
    def project(self) -> str:
        return self.account.project

    def client(self, kind: type[Any]) -> Any:
        with self._lock:
            if kind not in self._built:
                self._built[kind] = kind(
                    credentials=self.account.credentials, client_options={"api_endpoint": self.api}
                )
            return self._built[kind]
