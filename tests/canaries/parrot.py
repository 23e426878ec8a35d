"""A service that refuses every call, and quotes all of the call in its refusal: the worst that
GitHub, GitLab or a cloud could answer. With it every secret that is sent comes back as foreign
text."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

import trustme

SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    repr,
    json.dumps,
    lambda text: base64.b64encode(text.encode()).decode(),
)
CUT = 300
"""Characters of a page that is no JSON, which the launcher quotes."""


class Parrot:
    """`url`, and over TLS `safe_url`, which `authority`, a file, makes trusted. `answer`: how the
    next refusals are spelled, by number; `page`: whether they are pages, which are cut when they
    are quoted, and not JSON."""

    def __init__(self, folder: Path) -> None:
        issuer = trustme.CA()
        self.authority = folder / "authority.pem"
        issuer.cert_pem.write_to_path(str(self.authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("127.0.0.1").configure_cert(context)
        self._servers = [_Server(self, None), _Server(self, context)]
        self.url, self.safe_url = (server.url for server in self._servers)
        self.spelling = 0
        self.page = False

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def said(self, quoted: str) -> str:
        return SPELLINGS[self.spelling % len(SPELLINGS)](quoted)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, parrot: Parrot, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.parrot = parrot
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.server_port}"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no error of this one."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing: standard error is what the tests look at."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode("utf-8", "replace")
        sent = "\n".join(self.headers.values())
        kind, answer = self._refusal(f"{self.path}\n{sent}\n{body}")
        content = answer.encode("utf-8", "replace")
        self.send_response(403)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content)

    def _refusal(self, call: str) -> tuple[str, str]:
        quoted = self.server.parrot.said(call)
        if self.server.parrot.page:
            sent = self.headers.get("Authorization", self.headers.get("PRIVATE-TOKEN", call))
            return "text/html", f"{'.' * (CUT - 20)}{sent.removeprefix('Bearer ')}"
        if "Boto" in self.headers.get("User-Agent", ""):
            error = f"<Code>AuthFailure</Code><Message>{escape(quoted)}</Message>"
            return "text/xml", f"<Response><Errors><Error>{error}</Error></Errors></Response>"
        if "oauth2" in self.path:
            described = f"AADSTS7000215: {quoted}"
            return "application/json", json.dumps(
                {"error": "invalid_client", "error_description": described}
            )
        if "/compute/" in self.path:
            of_google = {"code": 403, "message": quoted, "errors": [{"reason": quoted}]}
            return "application/json", json.dumps({"error": of_google})
        status = {"kind": "Status", **dict.fromkeys(("reason", "message", "error"), quoted)}
        return "application/json", json.dumps(status)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815
