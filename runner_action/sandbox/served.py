"""A service of the embedded world over HTTP. It records every call, and any call can be made to
fail."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import make_server

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]
Between = Callable[[Application, dict[str, Any], Start], Iterable[bytes]]
"""Between a caller and an application: may pass a request on once, twice or not at all, and return
the response or lose it."""


@dataclass
class Fault:
    """Matching requests fail with `status`, `times` times. `late`: after they were carried out, as
    if their response was lost."""

    method: str
    path: re.Pattern[str]
    status: int
    times: int
    body: Mapping[str, object]
    late: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    slow: float = 0.0
    """Seconds before the response."""


@dataclass
class Served:
    """`requests`: method, path and status of all calls to the public API, whose paths begin with
    `api`. `tls`: files of certificate and key."""

    app: Flask
    api: str
    tls: tuple[str, str] | None = None
    host: str = "127.0.0.1"
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    between: Between | None = None

    def __post_init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.app.after_request(self._record)
        self._server = make_server(self.host, 0, self.serve, threaded=True, ssl_context=self.tls)
        self.url = f"{'https' if self.tls else 'http'}://{self.host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        return self.between(self.app, environ, start) if self.between else self.app(environ, start)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        times: int = 1,
        body: Mapping[str, object] | None = None,
        *,
        late: bool = False,
        slow: float = 0.0,
        **headers: str,
    ) -> None:
        """Makes matching requests fail. `headers`: with _ for -. Status 0: the connection is closed
        without a response."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(
            Fault(
                method,
                re.compile(path),
                status,
                times,
                body or {"message": "Fault"},
                late,
                named,
                slow,
            )
        )

    def fault(self, *, late: bool = False) -> Any:
        """The response to the current request if it must fail; otherwise None."""
        for fault in self.faults:
            if (
                fault.times > 0
                and fault.late is late
                and fault.method == request.method
                and fault.path.search(request.path)
            ):
                fault.times -= 1
                time.sleep(fault.slow)
                if not fault.status:
                    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return dict(fault.body), fault.status or 500, dict(fault.headers)
        return None

    def _record(self, response: Response) -> Response:
        if request.path.startswith(self.api):
            self.requests.append((request.method, request.path, response.status_code))
        return response
