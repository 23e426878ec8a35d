"""Calls that a server, or the resolution of a name, could draw out for ever."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import ending, stage
from runner_action.agent.forge import member
from runner_action.agent.metadata import Metadata
from tests.agent.test_spec import SPEC

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n"
SECONDS = 0.6


class Unkind:
    """Answers every connection with `head` and then a byte each tenth of a second; with `then` at
    the end of a whole answer, or never."""

    def __init__(self, head: bytes, whole: bytes = b"") -> None:
        self.head, self.whole = head, whole
        self.asked: list[float] = []
        self.closing = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        self.asked.append(time.monotonic())
        with connection:
            connection.recv(65536)
            try:
                if self.whole and len(self.asked) > 1:
                    connection.sendall(self.whole)
                    return
                connection.sendall(self.head)
                while self.head and not self.closing.wait(0.1):
                    connection.sendall(b"x")
                self.closing.wait()
            except OSError:  # the client has gone
                pass

    def close(self) -> None:
        self.closing.set()
        self.server.close()


@pytest.fixture
def unkind() -> Iterator[Callable[..., Unkind]]:
    servers: list[Unkind] = []

    def start(*args: bytes) -> Unkind:
        servers.append(Unkind(*args))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def github(url: str) -> Any:
    spec = dataclasses.replace(SPEC, api_url=url)
    return member(spec, Path("/nowhere/runner"), {}, {}).ask("GET", "/x", timeout=SECONDS)


def gitlab(url: str) -> Any:
    spec = dataclasses.replace(SPEC, forge="gitlab", api_url=url)
    return member(spec, Path("/nowhere/runner"), {}, {}).ask("POST", "/x", {}, timeout=SECONDS)


def service(url: str) -> Any:
    return Metadata(url).ask("GET", "/x", {}, timeout=SECONDS)


def cloud(url: str) -> Any:
    return ending.ask("DELETE", url, {}, seconds=SECONDS)


def first_stage(url: str) -> Any:
    return stage.downloaded(url, SECONDS)


CALLS = [github, gitlab, service, cloud, first_stage]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 O", HEAD + b"X-Slow: ", HEAD + b"\r\n"], ids=[0, 1, 2, 3]
)
def test_a_call_ends_in_time_as_a_whole(
    call: Callable[[str], Any], head: bytes, unkind: Callable[..., Unkind]
) -> None:
    """Whatever is drawn out: the beginning, the status, a header, the text."""
    server = unkind(head)
    began = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        call(server.url)
    assert SECONDS / 2 < time.monotonic() - began < SECONDS + 1
    assert len(server.asked) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_is_never_resolved(
    call: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        call("http://name.invalid")
    assert time.monotonic() - began < SECONDS + 1


def test_the_first_stage_tries_again_after_a_call_without_an_end(
    unkind: Callable[..., Unkind],
) -> None:
    server = unkind(HEAD + b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagent")
    assert stage.fetched(server.url, 60, sleep=lambda _: None, whole=SECONDS) == b"agent"
    assert len(server.asked) == 2
