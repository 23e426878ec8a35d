"""A Kubernetes API server, as far as a launch asks: Jobs, Pods with their logs, Secrets, events,
and streams of what changes of them.

What happens to the objects is done by `control`. Held to Kubernetes' own description
by the tests, in what it takes and in what it says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import Any

from flask import Flask, Response, request

from runner_action.sandbox.kubernetes.admission import Admission, Refusing
from runner_action.sandbox.kubernetes.control import Control
from runner_action.sandbox.kubernetes.decoding import unreadable
from runner_action.sandbox.kubernetes.inside import execute
from runner_action.sandbox.kubernetes.jobs import generated
from runner_action.sandbox.kubernetes.log import log_of
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.sandbox.kubernetes.queues import frozen
from runner_action.sandbox.kubernetes.rules import (
    KINDS,
    MOST_BYTES,
    VERSION,
    Failed,
    about,
    choice,
    ended,
    full,
    invalid,
    merged,
    refused,
    settled,
)
from runner_action.sandbox.kubernetes.shelf import Json, Shelf
from runner_action.sandbox.kubernetes.watch import Watches
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.served import Served

TOKEN = "canary-kubernetes-token"
ACCOUNT = "system:serviceaccount:ci:launcher"
PATH = re.compile(
    r"/(?:api|apis/(?P<group>batch))/v1/namespaces/(?P<space>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?P<log>/log)?)?/?"
)
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete", "PATCH": "patch"}
FIXED = ("template", "selector", "completions", "completionMode", "backoffLimitPerIndex")
"""What of a Job's spec cannot be changed."""


@dataclass
class FakeKubernetes:
    """With `machines` its pods live as processes; without, one that can start runs until it is
    deleted. `factor`: of Jobs' and kubelets' seconds."""

    machines: Machines | None = None
    host: str = "127.0.0.1"
    factor: float = 1.0
    namespaces: set[str] = field(default_factory=lambda: {"default", "ci"})
    nodes: list[Node] = field(default_factory=lambda: [Node("node-1")])
    broken_images: dict[str, str] = field(default_factory=dict)
    """Images that cannot be pulled, and what is said then."""
    admission: list[Admission] = field(default_factory=list)
    """What may change each pod that is created, and refuse it."""
    kubelet_refusals: list[tuple[str, str]] = field(default_factory=list)
    """Reason and message with which a kubelet refuses the next pods that it is given."""
    refusals: list[tuple[str, Failed]] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    """What the caller may not, in RBAC's words, such as `create batch/jobs`, `watch pods`, `get
    pods/log`."""
    asked: list[str] = field(default_factory=list)
    """What was asked so far, in the same words."""
    calls: list[str] = field(default_factory=list)
    """The same with the object's namespace and name."""
    said: str = "Booting\n"
    """What is in the log of a pod that is no process."""
    token: str = TOKEN
    tls: tuple[str, str] | None = None
    """Files of certificate and key."""

    def __post_init__(self) -> None:
        self.app = Flask(__name__)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]
        self.app.add_url_rule(
            "/<path:rest>", "api", self._api, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]
        )
        self.shelf = Shelf()
        self.watches = Watches(self.shelf)
        self.control = Control(self)
        self.served = Served(self.app, "/api", self.tls, self.host)
        self.url = self.served.url

    @property
    def kubeconfig(self) -> str:
        """JSON, which is YAML too."""
        cluster = {"name": "sandbox", "cluster": {"server": self.url}}
        user = {"name": "launcher", "user": {"token": self.token}}
        context = {
            "name": "sandbox",
            "context": {"cluster": "sandbox", "user": "launcher", "namespace": "ci"},
        }
        parts = {
            "clusters": [cluster],
            "users": [user],
            "contexts": [context],
            "current-context": "sandbox",
        }
        return json.dumps({"apiVersion": "v1", "kind": "Config", "preferences": {}, **parts})

    def close(self) -> None:
        self.watches.close()
        self.control.close()
        self.served.close()

    def alive(self) -> list[str]:
        """What must not be left: all but what has ended, and waits for its time to be deleted."""
        with self.shelf.changed:
            found = [
                (kind, one)
                for kind in ("job", "pod", "secret")
                for one in self.shelf.of(f"{kind}s")
            ]
        left = [(kind, one["metadata"]) for kind, one in found if not ended(kind, one)]
        return sorted(f"{kind} {meta['namespace']}/{meta['name']}" for kind, meta in left)

    def actions(self) -> list[str]:
        """What it was asked: verb and kind."""
        return list(self.asked)

    def refuse(self, words: str, code: int, reason: str, message: str, times: int = 1) -> None:
        """What is asked in these words of RBAC is answered with such a Status, so many times."""
        self.refusals += [(words, Failed(code, reason, message))] * times

    def refuse_pods(self, message: str, after: int = 0) -> None:
        """Of each Job no more than `after` pods can be made, as with a quota or a Pod Security
        Standard; without a message they can again."""
        self.admission = [Refusing(message, after)] if message else []

    def evict(self, pod_name: str, seconds: int | None = None) -> None:
        """What `kubectl drain`, a preemption or a node being taken away does, with the pod's
        grace period or that one."""
        with self.shelf.changed:
            pod = next(one for one in self.shelf.of("pods") if one["metadata"]["name"] == pod_name)
            self.control.disrupt(pod, seconds)

    def execute(self, pod_name: str, container: str, argv: list[str]) -> CompletedProcess[bytes]:
        """What `pods/exec` gives to whoever may: not by a request here, since that is a
        WebSocket."""
        assert self.machines
        with self.shelf.changed:
            number = next(
                one["metadata"]["uid"]
                for one in self.shelf.of("pods")
                if one["metadata"]["name"] == pod_name
            )
        return execute(self.machines.folder / number, container, argv)

    def cut_watches(self) -> None:
        """All streams end now."""
        self.watches.cut()

    def expire(self) -> None:
        """No stream can go on from what was seen so far: the next that wants to is told so."""
        with self.shelf.changed:
            self.shelf.expire()

    # --- the switchboard

    def _api(self, rest: str) -> Any:
        if fault := self.served.fault():
            return fault
        try:
            told = self._answer(f"/{rest}")
        except Failed as failed:
            told = failed.status, failed.code
        return self.served.fault(late=True) or told

    def _answer(self, path: str) -> Any:
        scheme, _, by = request.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), by) != ("bearer", self.token) and (by or path != "/version"):
            raise Failed(401, "Unauthorized", "Unauthorized")
        if path.rstrip("/") == "/version":
            return {**VERSION, "goVersion": "go1.26.0", "compiler": "gc", "platform": "linux/amd64"}
        match = PATH.fullmatch(path)
        if (
            not match
            or match["resource"] not in KINDS
            or KINDS[match["resource"]][0] != (match["group"] or "")
        ):
            raise Failed(404, "NotFound", "the server could not find the requested resource", {})
        resource = match["resource"]
        space = match["space"]
        name = match["name"]
        log = match["log"]
        watch = request.args.get("watch", "").lower() in ("true", "1")
        verb = VERBS.get(request.method, "")
        if request.method == "GET" and not name:
            verb = "watch" if watch else "list"
        if (
            not verb
            or (verb in ("get", "delete", "patch")) is not bool(name)
            or (verb == "patch" and resource != "jobs")
            or (log and verb != "get")
        ):
            raise Failed(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                {},
            )
        self._admit(verb, resource, space, name, log or "")
        with self.shelf.changed:
            if name is None:
                return (
                    self._create(resource, space)
                    if verb == "create"
                    else self._many(verb, resource, space)
                )
            one = self.shelf.get(resource, space, name)
            if one is None:
                raise Failed(
                    404, "NotFound", f'{full(resource)} "{name}" not found', about(resource, name)
                )
            if log:
                return log_of(one, self._console)
            if verb == "delete":
                return self._delete(resource, one)
            return self._patch(resource, one) if verb == "patch" else one

    def _admit(self, verb: str, resource: str, space: str, name: str | None, log: str) -> None:
        """Whether the caller may; written down in either case."""
        group = KINDS[resource][0]
        words = f"{verb} {group}{'/' if group else ''}{resource}{log}"
        self.asked.append(words)
        self.calls.append(f"{words} {space}{'/' if name else ''}{name or ''}")
        if words in self.denied:
            what = f'{full(resource)} "{name}"' if name else full(resource)
            why = (
                f'User "{ACCOUNT}" cannot {verb} resource "{resource}{log}" in API group "{group}"'
                f' in the namespace "{space}"'
            )
            raise Failed(403, "Forbidden", f"{what} is forbidden: {why}", about(resource, name))
        for refusal in self.refusals:
            if refusal[0] == words:
                self.refusals.remove(refusal)
                raise refusal[1]

    # --- verbs

    def _many(self, verb: str, resource: str, space: str) -> Any:
        chosen = choice(resource, space)
        if verb == "watch":
            return Response(
                self.watches.stream(
                    resource,
                    chosen,
                    int(request.args.get("resourceVersion") or 0),
                    float(request.args.get("timeoutSeconds", 3600)),
                ),
                content_type="application/json",
            )
        found = [
            {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
            for one in self.shelf.of(resource)
            if chosen(one)
        ]
        group, kind = KINDS[resource]
        # In pieces, if that is asked for:
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
        begun = int(request.args.get("continue") or 0)
        limit = request.args.get("limit", 0, type=int) or len(found)
        left = max(0, len(found) - begun - limit)
        more = {"continue": str(begun + limit), "remainingItemCount": left} if left else {}
        head = {
            "kind": f"{kind}List",
            "apiVersion": f"{group}/v1" if group else "v1",
            "metadata": {"resourceVersion": str(self.shelf.version), **more},
        }
        return {**head, "items": found[begun : begun + limit]}

    def _create(self, resource: str, space: str) -> Any:
        if space not in self.namespaces:
            details = {"name": space, "kind": "namespaces"}
            raise Failed(404, "NotFound", f'namespaces "{space}" not found', details)
        if len(request.data) > MOST_BYTES:
            raise Failed(
                413, "RequestEntityTooLarge", f"Request entity too large: limit is {MOST_BYTES}"
            )
        body: Any = request.get_json(force=True, silent=True)
        if why := unreadable(resource, body):
            raise Failed(400, "BadRequest", why)
        meta = body.setdefault("metadata", {})
        if meta.setdefault("namespace", space) != space:
            raise Failed(
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the"
                " request",
            )
        if "name" not in meta and "generateName" in meta:
            meta["name"] = generated(meta["generateName"])
        name = meta.get("name", "")
        if causes := list(invalid(resource, body)):
            raise refused(resource, name, causes)
        if self.shelf.get(resource, space, name):
            raise Failed(
                409,
                "AlreadyExists",
                f'{full(resource)} "{name}" already exists',
                about(resource, name),
            )
        return self.shelf.put(resource, settled(resource, body)), 201

    def _delete(self, resource: str, one: Json) -> Any:
        # With a body the query is not read:
        # https://github.com/kubernetes/kubernetes: apiserver/pkg/endpoints/handlers/delete.go
        body: Json = request.get_json(force=True, silent=True) or request.args.to_dict()
        meta = one["metadata"]
        grace = body.get("gracePeriodSeconds")
        if (wanted := body.get("preconditions", {}).get("uid", meta["uid"])) != meta["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {wanted}, UID in object meta:"
                f" {meta['uid']}"
            )
            raise Failed(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {full(resource)} "{meta["name"]}": {why}',
                about(resource, meta["name"]),
            )
        if resource == "pods":
            self.control.delete_pod(one, None if grace is None else int(grace))
            return one
        if resource == "jobs":
            policy = body.get("propagationPolicy", "Orphan")  # batch/v1's default alone
            self.control.delete_job(one, policy)
            if policy == "Foreground":
                return self.shelf.get(resource, meta["namespace"], meta["name"])
        else:
            self.shelf.drop(resource, one)
        details = {**about(resource, meta["name"]), "uid": meta["uid"]}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }

    def _patch(self, resource: str, one: Json) -> Any:
        if request.mimetype not in (
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ):
            raise Failed(
                415,
                "UnsupportedMediaType",
                f"the body of the request was in an unknown format: {request.mimetype}",
            )
        made = merged(one, request.get_json(force=True))
        # An Indexed Job may be made longer and shorter.
        elastic = made["spec"].get("completionMode") == "Indexed" and made["spec"].get(
            "completions"
        ) == made["spec"].get("parallelism")
        causes = [
            f"spec.{part}: Invalid value: {json.dumps(made['spec'].get(part))}: field is immutable"
            for part in FIXED
            if made["spec"].get(part) != one["spec"].get(part)
            and not (elastic and part == "completions")
        ]
        if causes := [*causes, *frozen(one, made), *invalid(resource, made)]:
            raise refused(resource, one["metadata"]["name"], causes)
        return self.shelf.put(resource, {**made, "status": one["status"]})

    def _console(self, number: str) -> str:
        if not self.machines:
            return self.said
        return self.machines.console(number) if number in self.machines.living else ""
