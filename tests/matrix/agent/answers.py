"""What can happen to a request of the agent's. Runs in every Python of a machine in its matrix."""

from __future__ import annotations

import errno
import http.client
import io
import time
from collections.abc import Callable
from typing import Any

from tests.matrix.agent.effects import FOR_EVER, Injected

ANSWERS = {
    "503": (503, "Service Unavailable", '{"message": "Try again."}'),
    "403": (403, "Forbidden", '{"message": "No."}'),
    "another page": (200, "OK", "<html>Please log in to this network.</html>"),
}
SILENT = 5.0
"""Seconds that a caller waits in vain at most: its patience, too, is shortened."""
real_request = http.client.HTTPConnection.request
real_response = http.client.HTTPConnection.getresponse


class Canned:
    """A connection that has received this."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._content)


def canned(number: int, reason: str, headers: str, body: bytes) -> http.client.HTTPResponse:
    head = f"HTTP/1.1 {number} {reason}\r\n{headers}\r\n".encode()
    made = http.client.HTTPResponse(Canned(head + body))  # type: ignore[arg-type]
    made.begin()
    return made


def half_of(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    body = response.read()
    kept = [(name, text) for name, text in response.getheaders() if name != "Content-Length"]
    told = [*kept, ("Content-Length", str(len(body)))]
    headers = "".join(f"{name}: {text}\r\n" for name, text in told)
    return canned(response.status, response.reason, headers, body[: len(body) // 2])


def requester(injected: Injected) -> Callable[..., None]:
    def request(
        self: Any, method: str, url: str, body: Any = None, headers: Any = None, **more: Any
    ) -> None:
        path = url.partition("?")[0]
        self.fate = fate = injected.meet("request", f"{method} {path}")
        if fate.rpartition(" ")[0] in ANSWERS or fate in ANSWERS:
            return
        real_request(self, method, url, body, headers or {}, **more)
        if fate == "done twice":
            real_response(self).read()
            self.close()
            real_request(self, method, url, body, headers or {}, **more)

    return request


def response(self: Any) -> http.client.HTTPResponse:
    fate = getattr(self, "fate", "")
    answer = ANSWERS.get(fate) or ANSWERS.get(fate.partition(" ")[0])
    if answer:
        number, reason, text = answer
        return canned(number, reason, f"Content-Length: {len(text)}\r\n", text.encode())
    got = real_response(self)
    if fate in ("done, answer lost", "done, no answer"):
        got.read()
        self.close()
        if fate == "done, no answer":
            limited = isinstance(self.timeout, int | float)
            time.sleep(min(self.timeout, SILENT) if limited else FOR_EVER)
            raise TimeoutError("timed out")
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return half_of(got) if fate.startswith("half") else got


def inject(injected: Injected) -> None:
    http.client.HTTPConnection.request = requester(injected)  # type: ignore[method-assign]
    http.client.HTTPConnection.getresponse = response  # type: ignore[method-assign]
