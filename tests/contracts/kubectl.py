"""kubectl as the judge of manifests: its own check, by the description of Kubernetes,
and no cluster.

kubectl (`create --dry-run=client --validate=strict`) asks its server what kinds there are, and
for the description as `/openapi/v2`, only in protobuf. A server that does not say of itself that
it checks fields (`fieldValidation`, looked for in `/openapi/v3`, which is missing here, and then
among the paths of `/openapi/v2`, which has none here) is not trusted to: kubectl then checks
them itself. Both are served from this process.

It finds unknown and missing fields, and objects, lists, numbers and truths where they do not
belong. It does not look at the words that a field may hold, at names, quantities or base64, at
what fits together, at unknown fields that are null, and takes a number for a text and a fraction
for a whole number: only a server refuses those.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.descriptions import described

MISSING = "kubectl is missing, so it judged nothing"
KIND = "x-kubernetes-group-version-kind"
OPENAPI, PROTOBUF = "/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def there() -> bool:
    return shutil.which("kubectl") is not None


def description() -> dict[str, Any]:
    """Kubernetes' own; a fresh copy."""
    return described("kubernetes-1.36-swagger.json")


class Kubectl:
    """While entered, `validate` asks kubectl. `requests`: the paths it asked for at its last
    verdict."""

    def __init__(self, by: Mapping[str, Any] | None = None) -> None:
        whole = description() if by is None else by
        self._answers = {**discovery(whole), OPENAPI: document(whole)}
        self.requests: list[str] = []

    def validate(self, manifest: Mapping[str, Any]) -> str:
        """Empty if kubectl accepts it, else what it said."""
        self.requests.clear()
        home = self._home.name
        # Nothing of this machine's: no kubeconfig, no cache of another server's answers, no proxy.
        env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "KUBECONFIG": f"{home}/none",
            "KUBECACHEDIR": f"{home}/cache",
        }
        command = [
            "kubectl",
            "create",
            f"--server={self._url}",
            "--dry-run=client",
            "--validate=strict",
            "--output=name",
            "--filename=-",
        ]
        ended = subprocess.run(
            command,
            input=json.dumps(manifest),
            check=False,
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
        )
        if ended.returncode:
            return ended.stderr.strip() or f"kubectl ended with {ended.returncode}"
        # It passes over kinds without a description, and leaves the check to servers that can do
        # it.
        assert OPENAPI in self.requests, (
            f"kubectl accepted without a look at the description: {ended.stderr}"
        )
        return ""

    def __enter__(self) -> Kubectl:
        answers, requests = self._answers, self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                requests.append(path)
                body = answers.get(path)
                self.send_response(404 if body is None else 200)
                self.send_header(
                    "Content-Type", PROTOBUF if path == OPENAPI else "application/json"
                )
                self.end_headers()
                self.wfile.write(body or b"{}")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Silent."""

        self._home = tempfile.TemporaryDirectory(prefix="kubectl-")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._home.cleanup()


# --- what kinds there are


def discovery(whole: Mapping[str, Any]) -> dict[str, bytes]:
    """Path -> answer, for all kinds that can be made by `paths` and have a definition: kubectl
    does not check one without, so it must not know it."""
    defined = {
        _key(one) for schema in whole["definitions"].values() for one in schema.get(KIND, ())
    }
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, entry in whole["paths"].items():
        kind = entry.get("post", {}).get(KIND)
        if kind is None or "/{name}" in path or _key(kind) not in defined:
            continue
        group, version, name = _key(kind)
        resource = {
            "name": path.rpartition("/")[2],
            "singularName": name.lower(),
            "namespaced": "{namespace}" in path,
            "kind": name,
            "verbs": ["create"],
        }
        groups.setdefault(f"{group}/{version}".removeprefix("/"), []).append(resource)
    named = [(one, *one.split("/")) for one in groups if "/" in one]
    versions = [(group, {"groupVersion": one, "version": version}) for one, group, version in named]
    told: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": [one for one in groups if "/" not in one]},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                {"name": group, "versions": [one], "preferredVersion": one}
                for group, one in versions
            ],
        },
    }
    for one, resources in groups.items():
        told[f"/{'apis' if '/' in one else 'api'}/{one}"] = {
            "kind": "APIResourceList",
            "groupVersion": one,
            "resources": resources,
        }
    return {
        path: json.dumps({"apiVersion": "v1", **answer}).encode() for path, answer in told.items()
    }


def _key(kind: Mapping[str, str]) -> tuple[str, str, str]:
    return kind["group"], kind["version"], kind["kind"]


# --- the description in protobuf:
# https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto, as far as kubectl's
# check reads it


def document(whole: Mapping[str, Any]) -> bytes:
    """A `Document`. Without paths, so that nothing says that the server could check fields."""
    info = _field(1, whole["info"]["title"]) + _field(2, whole["info"]["version"])
    return _field(1, whole["swagger"]) + _field(2, info) + _field(9, _named(whole["definitions"]))


def _named(schemas: Mapping[str, Any]) -> bytes:
    """`Definitions` and `Properties`: both are a list of `NamedSchema`."""
    return b"".join(
        _field(1, _field(1, name) + _field(2, _schema(one))) for name, one in schemas.items()
    )


def _schema(schema: Mapping[str, Any]) -> bytes:
    return b"".join(part for key, value in schema.items() for part in _parts(key, value))


def _parts(key: str, value: Any) -> Iterator[bytes]:
    """Of a `Schema`: what a word of the description is there."""
    match key:
        case "$ref":
            yield _field(1, value)
        case "format":
            yield _field(2, value)
        case "required":
            yield from (_field(19, one) for one in value)
        case "additionalProperties":
            yield _field(
                21,
                (
                    _varint(2 << 3) + _varint(value)
                    if isinstance(value, bool)
                    else _field(1, _schema(value))
                ),
            )
        case "type":
            yield _field(22, _field(1, value))
        case "items":
            yield _field(23, _field(1, _schema(value)))
        case "properties":
            yield _field(25, _named(value))
        case _ if key.startswith("x-"):
            yield _field(
                31, _field(1, key) + _field(2, _field(2, json.dumps(value)))
            )  # in YAML, which JSON is


def _field(number: int, content: str | bytes) -> bytes:
    """With its length before it: a text, or a message."""
    held = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(held)) + held


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
