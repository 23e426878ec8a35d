"""A real API server for tests: of a cluster that may be used for that, or started from programs.

`CML_RUNNER_TEST_KUBECONFIG` is the path of a kubeconfig of an administrator, as of kind: tests make
namespaces and nodes there. A variable of its own, so that no cluster is used by accident; and
tests/conftest.py lets no test reach another machine.
`KUBEBUILDER_ASSETS` is a folder with `etcd` and `kube-apiserver`, as `setup-envtest` makes it
(https://book.kubebuilder.io/reference/envtest); with `kube-controller-manager` and
`kube-scheduler` in it, too, all tests run.
Without either they are skipped, loudly.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runner_action.model import Secret
from runner_action.providers.kubernetes.cluster import access
from runner_action.providers.kubernetes.options import KubernetesOptions
from runner_action.sandbox.machine.systemd import die_with_parent
from tests.judges import missing

Json = dict[str, Any]
GIVEN, ASSETS = "CML_RUNNER_TEST_KUBECONFIG", "KUBEBUILDER_ASSETS"
MISSING = (
    f"no API server: {GIVEN} is not the kubeconfig of a cluster for tests, nor {ASSETS} a folder"
    " with etcd and kube-apiserver"
)
ADMIN = "administrator-of-tests"
CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "ttl-after-finished-controller",
    "resourcequota-controller",
    "namespace-controller",
)
"""The others, such as those of nodes' lives, would take nodes away that have no kubelet.
https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/"""
AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""
"""https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/"""
START_SECONDS = 120


class Api:
    """An account of an API server, and every request it may make. `send` returns the status, the
    body, and the warnings."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        options = KubernetesOptions(configuration=Secret(kubeconfig))
        self._client = access(options, {}).client

    def send(
        self, method: str, path: str, body: Any = None, **query: str
    ) -> tuple[int, Json, list[str]]:
        patch = "application/merge-patch+json"
        headers = {"Content-Type": patch if method == "PATCH" else "application/json"}
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=(10, 60)).response
        text = answer.data.decode()
        parsed = json.loads(text) if text.startswith("{") else {"text": text}
        return answer.status, parsed, answer.headers.getlist("Warning")

    def done(self, method: str, path: str, body: Any = None, **query: str) -> Json:
        """The answer to what must succeed."""
        status, answer, _ = self.send(method, path, body, **query)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer


@dataclass
class Server:
    """`works`: there are controllers and a scheduler. `audit`: the file of who asked for what, None
    if it cannot be read."""

    kubeconfig: str
    works: bool = True
    audit: Path | None = None
    admin: Api = field(init=False)

    def __post_init__(self) -> None:
        self.admin = Api(self.kubeconfig)

    @property
    def version(self) -> str:
        return str(self.admin.done("GET", "/version")["gitVersion"])

    def asked_by(self, user: str) -> set[str]:
        """What it was allowed to do so far, in RBAC's words; empty if that cannot be read."""
        if not self.audit:
            return set()
        events = map(json.loads, self.audit.read_text("utf-8").splitlines())
        return {
            " ".join((event["verb"], _resource(event["objectRef"])))
            for event in events
            if event["user"].get("username") == user
            and event["annotations"]["authorization.k8s.io/decision"] == "allow"
        }

    def by_token(self, token: str, namespace: str = "default") -> str:
        """A kubeconfig with that token instead of the administrator."""
        config: Json = yaml.safe_load(self.kubeconfig)
        chosen = next(
            one["context"] for one in config["contexts"] if one["name"] == config["current-context"]
        )
        config["users"] = [{"name": "by-token", "user": {"token": token}}]
        context = {**chosen, "user": "by-token", "namespace": namespace}
        config["contexts"] = [{"name": config["current-context"], "context": context}]
        return json.dumps(config)

    def __repr__(self) -> str:  # pytest shows it
        return "a real API server"


def _resource(reference: Json) -> str:
    parts = (reference.get(key) for key in ("apiGroup", "resource", "subresource"))
    return "/".join(part for part in parts if part)


# --- starting one


@contextmanager
def offered() -> Iterator[Server]:
    """The server that the environment offers."""
    given, assets = os.environ.get(GIVEN, ""), os.environ.get(ASSETS, "")
    if given:
        yield Server(Path(given).read_text("utf-8"))
    elif assets:
        with tempfile.TemporaryDirectory() as folder, started(Path(assets), Path(folder)) as server:
            yield server
    else:
        missing(MISSING)


@contextmanager
def started(assets: Path, folder: Path) -> Iterator[Server]:
    """Every program ends with this one, however it ends."""
    with ExitStack() as stack:

        def start(name: str, *words: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [str(assets / name), *words],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
            stack.callback(_end, process)
            return process

        etcd, port = f"http://127.0.0.1:{_port()}", _port()
        peer = f"http://127.0.0.1:{_port()}"
        start(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        )
        config = _files(folder, port)
        process = start("kube-apiserver", *_api_server(folder, etcd, port))
        server = Server(config.read_text("utf-8"), audit=folder / "audit.log")
        _await(server, port, process, folder / "kube-apiserver.log")
        server.works = all(
            (assets / f"kube-{name}").exists() for name in ("controller-manager", "scheduler")
        )
        if server.works:
            common = (f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0")
            start("kube-controller-manager", *common, f"--controllers={','.join(CONTROLLERS)}")
            start("kube-scheduler", *common)
        yield server


def _files(folder: Path, port: int) -> Path:
    """Certificates, keys, the administrator's token; the administrator's kubeconfig."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(folder / "certificate.pem"), append=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "accounts.pem").write_bytes(pem)
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    (folder / "audit.yaml").write_text(AUDIT)
    cluster = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": str(folder / "ca.pem"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": ADMIN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def _api_server(folder: Path, etcd: str, port: int) -> list[str]:
    """https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/"""
    return [
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'certificate.pem'}",
        f"--tls-private-key-file={folder / 'key.pem'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.pem'}",
        f"--service-account-signing-key-file={folder / 'accounts.pem'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]


def _await(server: Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError):  # it does not listen yet
            socket.create_connection(("127.0.0.1", port), 1).close()
            if server.admin.send("GET", "/readyz")[0] == 200:
                return
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"the API server does not start: {log.read_text('utf-8')[-2000:]}")
        time.sleep(0.3)


def _port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
