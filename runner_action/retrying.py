"""HTTP requests that no SDK sends, repeated like those of an SDK: after no response, 429 or 5xx.

A redirect sends the headers and the body of the request to the address in the response. Only the
service that was addressed may see a token, so a session follows no redirect to another origin,
and none from https to http.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

PASSING = (429, *range(500, 600))
SECONDS = 15.0
"""Timeout of one request: how long a service may send nothing."""
PORTS = {"http": 80, "https": 443}


class Elsewhere(requests.RequestException):
    """The response is a redirect to an origin that must not see this request."""


class Session(requests.Session):
    """`public`: the requests hold no secrets, so redirects to other origins are followed, as from
    a release to its mirror."""

    def __init__(self, *, public: bool = False) -> None:
        super().__init__()
        self._public = public

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Called before every redirect is followed.
        https://requests.readthedocs.io/en/latest/api/#requests.Session.rebuild_auth"""
        before, after = origin(response.request.url or ""), origin(prepared_request.url or "")
        downgraded = before[0] == "https" and after[0] != "https"
        if downgraded or (after != before and not self._public):
            raise Elsewhere(
                f"redirected from {before[0]}://{before[1]} to {after[0]}://{after[1]}",
                response=response,
            )
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme)


def session(*, public: bool = False) -> Session:
    """A session for reads and other requests that may be repeated. Its retries pause for about
    4 s in all."""
    retries = Retry(
        3,
        backoff_factor=0.6,
        status_forcelist=PASSING,
        allowed_methods=None,
        raise_on_status=False,
    )
    session = Session(public=public)
    for scheme in PORTS:
        session.mount(f"{scheme}://", HTTPAdapter(max_retries=retries))
    return session


def reason(error: requests.RequestException) -> str:
    """What went wrong, in a word: without the request, which the library's message quotes."""
    return str(error) if isinstance(error, Elsewhere) else type(error).__name__
