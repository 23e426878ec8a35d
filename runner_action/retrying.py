"""Plain HTTP where no SDK asks, with the same patience: what is not answered, or not now, is
asked again.

A redirect takes what was asked, with its headers and its body, to where the answer says. Nobody
but the one who was asked shall have a token, so a session goes to no other origin; and never from
https to http.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

PASSING = (429, *range(500, 600))
SECONDS = 15.0
"""How long a service may say nothing."""
PORTS = {"http": 80, "https": 443}


class Elsewhere(requests.RequestException):
    """The answer was a redirect to where this request must not go."""


class Session(requests.Session):
    """`public`: what is asked is nobody's secret, and may be asked elsewhere, as of a mirror."""

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
    """For questions, and for what does no harm when it is done twice; some 4 s in all, beside
    the service's own time."""
    made = Session(public=public)
    for scheme in PORTS:
        made.mount(
            f"{scheme}://",
            HTTPAdapter(
                max_retries=Retry(
                    3,
                    backoff_factor=0.6,
                    status_forcelist=PASSING,
                    allowed_methods=None,
                    raise_on_status=False,
                )
            ),
        )
    return made


def reason(error: requests.RequestException) -> str:
    """In a word: what went wrong, without what the library quotes of the request."""
    return str(error) if isinstance(error, Elsewhere) else type(error).__name__
