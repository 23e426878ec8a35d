"""No credential of the agent's goes to another host by a redirect; within its own, a call arrives
whole: a repository that was renamed or transferred is answered with 301 or 307."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from runner_action.agent import download, ending
from runner_action.agent.forge import member
from tests.agent.test_spec import SPEC

TOKEN = "canary-token"
Seen = list[tuple[str, str]]
BODY = {"labels": ["cml"]}


@contextmanager
def server(seen: Seen, status: int, location: str = "") -> Iterator[str]:
    """Answers everything in one way, and records all requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append((self.command, str(self.headers)))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


def github(url: str, method: str) -> None:
    spec = replace(SPEC, api_url=url, api_token=TOKEN)
    member(spec, Path("/nowhere/runner"), {}, {}).ask(method, "/x", None if method == "GET" else {})


def removal(url: str, method: str) -> None:
    spec = replace(SPEC, api_url=url, api_token=None, removal_token=TOKEN, runner_id=1)
    member(spec, Path("/nowhere/runner"), {}, {}).leave()


def gitlab(url: str, method: str) -> None:
    spec = replace(SPEC, forge="gitlab", api_url=url, api_token=TOKEN)
    member(spec, Path("/nowhere/runner"), {}, {}).ask(method, "/x", None if method == "GET" else {})


def program(url: str, method: str) -> None:
    with closing(download.open_archive(url, TOKEN)):
        pass


def cloud(url: str, method: str) -> None:
    ending.ask(
        method, url, {"Authorization": f"Bearer {TOKEN}"}, None if method == "GET" else b"{}"
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("client", [github, removal, gitlab, program, cloud])
def test_credentials_stay_where_they_belong(
    client: Callable[[str, str], None], status: int, method: str
) -> None:
    requests: Seen = []
    led: Seen = []
    with server(led, 200) as elsewhere, server(requests, status, f"{elsewhere}/there") as first:
        with suppress(OSError):
            client(first, method)
    assert TOKEN in "".join(headers for _, headers in requests)
    assert TOKEN not in "".join(headers for _, headers in led)


@contextmanager
def moved(status: int, times: int, seen: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """Redirects each request to another path of its own, so many times, and then answers it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            seen.append((self.command, self.path, self.headers.get("Authorization", ""), body))
            self.send_response(status if len(seen) <= times else 200)
            self.send_header("Location", f"/{len(seen)}")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


@pytest.mark.parametrize("forge", ["github", "gitlab"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("times", [1, 2, 99])
def test_a_call_within_the_host_is_followed_with_its_method_and_body(
    times: int, status: int, method: str, forge: str
) -> None:
    body = None if method == "GET" else BODY
    requests: list[tuple[str, str, str, str]] = []
    with moved(status, times, requests) as url:
        spec = replace(SPEC, forge=forge, api_url=url, api_token=TOKEN)
        answer, _ = member(spec, Path("/nowhere/runner"), {}, {}).ask(method, "/x", body)
    assert {request[0] for request in requests} == {method}
    assert {request[3] for request in requests} == {json.dumps(body) if body else ""}
    assert len({request[2] for request in requests}) == 1, "the same token"
    followed = status != 303 and times < 99
    assert answer == (200 if followed else status)
    assert len(requests) == (times + 1 if followed else len(requests))
    assert len(requests) <= 10, "not for ever"
