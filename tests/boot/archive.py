"""Debian's archive for machines that have no network: apt's proxy at an address of the lab, which
passes each request to a process that was started before the lab left the network.

`python -m tests.boot.archive SOCKET` is that process.
"""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.boot.promises import WHEELS
from tests.e2e.engine import run

PORT = 3142
"""Of apt-cacher-ng, by which people know such a proxy."""
PATIENCE = 20


class Outside(BaseHTTPRequestHandler):
    """Fetches what apt asks a proxy for."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        request = urllib.request.Request(self.path)
        for name in ("If-Modified-Since", "Range"):
            if value := self.headers.get(name):
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                self.send_response(response.status)
                for name in ("Content-Length", "Content-Type", "Last-Modified", "Content-Range"):
                    if value := response.headers.get(name):
                        self.send_header(name, value)
                self.end_headers()
                shutil.copyfileobj(response, self.wfile)
        except urllib.error.HTTPError as error:
            self.send_error(error.code)
        except OSError as error:
            self.send_error(502, str(error))

    def log_message(self, *_: object) -> None:
        """Not between the lines of a test."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Inside(socketserver.BaseRequestHandler):
    """Passes a connection's bytes on to the process outside, and back."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Relay)
        with socket.socket(socket.AF_UNIX) as outside:
            outside.connect(server.path)
            there = threading.Thread(target=pump, args=(self.request, outside), daemon=True)
            there.start()
            pump(outside, self.request)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Until the source has no more."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Relay(socketserver.ThreadingTCPServer):
    """The proxy, as the lab's machines see it. `path`: of the socket to the process outside."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, path: str) -> None:
        self.path = path
        super().__init__((address, PORT), Inside)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def wheels(folder: Path) -> None:
    """Fetches a package with a program, by pip as it is set up here, unless it is in `folder`.
    Raises Missing."""
    if not list(folder.glob("tabulate-*.whl")):
        words = ["download", "-q", "--no-deps", "--dest", str(folder), "tabulate==0.9.0"]
        run(sys.executable, "-m", "pip", *words)


def serve_wheels(address: str, folder: Path) -> socketserver.BaseServer:
    """Serves `folder` to pip's `--find-links`."""
    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer((address, WHEELS), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not between the lines of a test."""


def start() -> tuple[subprocess.Popen[bytes], str]:
    """The process outside, to be started while there is a network, and its socket's path."""
    path = str(Path(tempfile.mkdtemp(prefix="cml-runner-archive-")) / "socket")
    command = [sys.executable, "-m", "tests.boot.archive", path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    end = time.monotonic() + PATIENCE
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.05)
    return process, path


def end_with_parent() -> None:
    """The other end of standard input closes when the tests end, however they end."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    with Server(sys.argv[1], Outside) as serving:
        serving.serve_forever()
