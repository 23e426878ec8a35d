"""What tests do with a real API server: a namespace of their own, and nodes without machines."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from tests.judges import missing
from tests.real.apiserver import ASSETS, Api, Server, offered

Json = dict[str, Any]
SPACE_LABEL = "cml-runner.test/space"
ROOM = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110"}
HEARTBEAT_SECONDS = 10
"""The node controller gives up nodes that are silent for 50 s (`--node-monitor-grace-period`).
https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/"""


@dataclass
class Space:
    """A namespace of a test, and what a test makes in it or for it."""

    server: Server
    name: str
    path: str = field(init=False)
    batch: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = f"/api/v1/namespaces/{self.name}"
        self.batch = f"/apis/batch/v1/namespaces/{self.name}"

    @property
    def admin(self) -> Api:
        return self.server.admin

    def kubeconfig(self, account: str = "") -> str:
        """Of the administrator, or of a service account, with this namespace."""
        if not account:
            config: Json = yaml.safe_load(self.server.kubeconfig)
            for one in config["contexts"]:
                one["context"]["namespace"] = self.name
            return json.dumps(config)
        self.account(account)
        path = f"{self.path}/serviceaccounts/{account}/token"
        asked = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        token = self.admin.done("POST", path, asked)["status"]["token"]
        return self.server.by_token(token, self.name)

    def account(self, name: str) -> None:
        body = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": name}}
        status, answer, _ = self.admin.send("POST", f"{self.path}/serviceaccounts", body)
        assert status in (201, 409), answer

    def label(self, **labels: str) -> None:
        named = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
        self.admin.done("PATCH", self.path, {"metadata": {"labels": named}})

    def add(self, body: Json) -> Json:
        """An object of the API group that its `apiVersion` names."""
        version = body["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        path = f"{root}/namespaces/{self.name}/{body['kind'].lower()}s"
        return self.admin.done("POST", path, body)

    def quota(self, resource: str, hard: str) -> None:
        """A ResourceQuota, once its controller has counted."""
        body = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "compute"}}
        self.add({**body, "spec": {"hard": {resource: hard}}})
        until(lambda: self.items("resourcequotas")[0].get("status", {}).get("used"), "the quota")

    def items(self, kind: str, **query: str) -> list[Json]:
        root = self.batch if kind == "jobs" else self.path
        return list(self.admin.done("GET", f"{root}/{kind}", **query)["items"])

    def living(self) -> set[str]:
        """Names of pods that nobody has deleted."""
        metadata = [pod["metadata"] for pod in self.items("pods")]
        return {one["name"] for one in metadata if "deletionTimestamp" not in one}


def end(space: Space, pod: str, phase: str) -> None:
    """What a kubelet says when all of a pod's containers have ended."""
    space.admin.done("PATCH", f"{space.path}/pods/{pod}/status", {"status": {"phase": phase}})


def until(check: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


class Node:
    """A node without a machine, which only pods of its space choose (`chosen`), and what tests need
    of its kubelet: in a thread, it lets go of pods that are deleted, and says that the others run.
    """

    def __init__(self, space: Space, name: str = "a", **more: Any) -> None:
        """`more`: `room`, resources beside the usual ones; `taints`."""
        self._space = space
        self.name = f"{space.name}-{name}"
        self._path = f"/api/v1/nodes/{self.name}"
        self._over = threading.Event()
        self._make(more.get("room", {}), more.get("taints", []))
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @staticmethod
    def chosen(space: Space) -> str:
        return f"--cloud-kubernetes-node-selector={SPACE_LABEL}={space.name}"

    def _make(self, room: Json, taints: list[Json]) -> None:
        labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        labels[SPACE_LABEL] = self._space.name
        body = {"kind": "Node", "apiVersion": "v1"}
        self._space.admin.done(
            "POST", "/api/v1/nodes", {**body, "metadata": {"name": self.name, "labels": labels}}
        )
        amounts = {**ROOM, **room}
        self._say({"capacity": amounts, "allocatable": amounts})
        # Admission has put one there that says the node is not ready yet.
        self._space.admin.done("PATCH", self._path, {"spec": {"taints": taints}})

    def _say(self, status: Json) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        ready["lastHeartbeatTime"] = now
        path, body = f"{self._path}/status", {"status": {**status, "conditions": [ready]}}
        self._space.admin.done("PATCH", path, body)

    def _live(self) -> None:
        said = time.monotonic()
        while not self._over.wait(0.1):
            if time.monotonic() - said > HEARTBEAT_SECONDS:
                self._say({})
                said = time.monotonic()
            for pod in self._space.items("pods", fieldSelector=f"spec.nodeName={self.name}"):
                path = f"{self._space.path}/pods/{pod['metadata']['name']}"
                if "deletionTimestamp" in pod["metadata"]:
                    self._space.admin.send("DELETE", path, {"gracePeriodSeconds": 0})
                elif pod["status"]["phase"] == "Pending":
                    self._space.admin.send(
                        "PATCH", f"{path}/status", {"status": {"phase": "Running"}}
                    )

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._space.admin.send("DELETE", self._path)


# --- fixtures


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with offered() as found:
        print(f"\nKubernetes {found.version}")
        yield found


@pytest.fixture
def space(server: Server) -> Iterator[Space]:
    """A namespace, which goes with all that is in it."""
    name = f"cml-runner-test-{uuid.uuid4().hex[:8]}"
    body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
    server.admin.done("POST", "/api/v1/namespaces", body)
    made = Space(server, name)
    try:
        made.account("default")
        yield made
    finally:
        server.admin.send("DELETE", made.path)


@pytest.fixture
def working(space: Space) -> Space:
    """The same, where controllers and a scheduler do what objects say."""
    if not space.server.works:
        missing(f"no kube-controller-manager and kube-scheduler in {ASSETS}")
    return space


@pytest.fixture
def node(working: Space) -> Iterator[Node]:
    made = Node(working)
    yield made
    made.close()
