"""For all tests: nobody's network but this machine's, and canary secrets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_configure() -> None:
    """A shell ignores these for what it starts in the background, and so would every process of
    a test."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test leaves in the environment, such as a token, is put into every process that a
    later test starts."""
    before = variables()
    yield
    left = {name for name, _ in before.items() ^ variables().items()}
    for name in left:
        os.environ.pop(name, None)
    os.environ.update({name: before[name] for name in left & before.keys()})
    assert not left, "a test has changed these variables for all that follow it"


def variables() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def _only_this_machine(_same_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches out by mistake fails at once, on any machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
