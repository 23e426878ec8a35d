"""An Enterprise Server in a network of its own: a private authority, and a proxy that alone
knows where it is."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from runner_action.errors import ForgeError
from runner_action.forges.github.client import GitHub, Patience
from runner_action.model import App, Repository, Secret
from runner_action.sandbox.forges.github.api import FakeGitHub
from tests.fakes import FakeClock

NAME = "git.acme.test"
WHERE = Repository(url=f"https://{NAME}/octo/train")


class Proxy(socketserver.ThreadingTCPServer):
    """Of the kind that only passes bytes on (CONNECT), to one place whatever it is asked for."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.port, self.asked = port, list[str]()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Passing(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().decode().split()[1])
        while self.rfile.readline().strip():
            pass
        with socket.create_connection(("127.0.0.1", self.server.port)) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=passed, args=(self.connection, there), daemon=True).start()
            passed(there, self.connection)


def passed(one: socket.socket, other: socket.socket) -> None:
    try:
        while told := one.recv(65536):
            other.sendall(told)
        other.shutdown(socket.SHUT_WR)
    except OSError:  # the other end has gone
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path) -> Iterator[FakeGitHub]:
    issued, files = authority.issue_cert(NAME), (tmp_path / "certificate.pem", tmp_path / "key.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(str(files[0]))
    issued.private_key_pem.write_to_path(str(files[1]))
    fake = FakeGitHub(tokens={"canary-admin": "admin"}, tls=(str(files[0]), str(files[1])))
    yield fake
    fake.close()


@pytest.fixture
def proxy(server: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The job's own, in the variable that every program knows."""
    made = Proxy(int(server.url.rpartition(":")[2]))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, made.url)
    for name in ("NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.shutdown()
    made.server_close()


def test_through_the_jobs_proxy_by_an_authority_of_the_users(
    server: FakeGitHub, proxy: Proxy, authority: trustme.CA
) -> None:
    certificates = authority.cert_pem.bytes().decode()
    for credentials in (Secret("canary-admin"), App(id="4711", key=Secret(server.github_app.key))):
        forge = GitHub(WHERE, credentials, certificates=certificates)
        assert forge.api_url == f"https://{NAME}/api/v3"
        assert forge.runners() == []
    assert set(proxy.asked) == {f"{NAME}:443"}


def test_an_authority_that_nobody_named_is_not_trusted(server: FakeGitHub, proxy: Proxy) -> None:
    with pytest.raises(ForgeError, match=r"Cannot reach GitHub .*SSLError") as caught:
        GitHub(WHERE, Secret("canary-admin"), patience=Patience(FakeClock())).runners()
    assert "`ca-certificates`" in caught.value.hint
    assert server.requests == []
