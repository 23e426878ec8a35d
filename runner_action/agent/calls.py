"""Requests that end in time as a whole, and the pauses until something is tried again."""

from __future__ import annotations

import threading
import urllib.request
from typing import Any, Iterator, List, Tuple


class Plain(urllib.request.HTTPErrorProcessor):
    """Every response is returned as it is. No redirect is followed, as urllib would send the token
    to any host."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def call(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, seconds: float
) -> Tuple[int, Any, str]:
    """Sends a request. Returns status, headers and text. Raises OSError or HTTPException without a
    whole response within `seconds`; a socket's timeout begins anew with each byte, and the
    resolution of a name has none, so it runs in a thread of its own. `opener`: with `Plain`."""
    outcome: List[Any] = [OSError("timed out after %d s" % seconds)]

    def send() -> None:
        try:
            with opener.open(request, timeout=seconds) as response:
                text = response.read().decode("utf-8", "replace")
                outcome.append((response.status, response.headers, text))
        except Exception as error:  # raised again by the waiting thread
            outcome.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(seconds)
    last = outcome[-1]
    if isinstance(last, Exception):
        raise last
    return last  # type: ignore[no-any-return]


def pauses(most: float) -> Iterator[float]:
    """Seconds between attempts: ever more, up to `most`, without end."""
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, most)
