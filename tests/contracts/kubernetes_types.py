"""Kubernetes' own description: whatever a fake API server is sent and says is held to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from flask import Response, request
from jsonschema import Draft4Validator

from runner_action.sandbox.kubernetes.api import FakeKubernetes
from tests.contracts.openapi import closed, rewritten
from tests.descriptions import described

Json = dict[str, Any]
UNNAMED = {"/version": "io.k8s.apimachinery.pkg.version.Info"}
"""Answers that do not say what kind they are."""
EITHER = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
}
"""Which the description calls strings, and the server reads numbers for:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""


@cache
def description() -> Json:
    """With schemas that take nothing they do not name."""
    whole = described("kubernetes-1.36-oas3.json")
    schemas = rewritten(whole["components"]["schemas"], closed)
    for name, types in EITHER.items():
        schemas[name] = {"type": types}
    whole["components"]["schemas"] = schemas
    return whole


@cache
def validator(name: str) -> Draft4Validator:
    return Draft4Validator(
        {
            "$ref": f"#/components/schemas/{name}",
            "components": {"schemas": description()["components"]["schemas"]},
        }
    )


@cache
def kinds() -> dict[tuple[str, str], str]:
    """Schemas by apiVersion and kind."""
    found = {}
    for name, schema in description()["components"]["schemas"].items():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            found["/".join(filter(None, (one["group"], one["version"]))), one["kind"]] = name
    return found


def resolved(node: Json) -> Json:
    """What a reference to one of the components stands for."""
    if "$ref" in node:
        _, _, group, name = node["$ref"].split("/", 3)
        return dict(description()["components"][group][name])
    return node


def operation(method: str, path: str) -> tuple[Json, set[str]] | None:
    """What is described there, and the names it knows in the query."""
    for template, entry in description()["paths"].items():
        if (
            re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template.rstrip("/")), path.rstrip("/"))
            and method.lower() in entry
        ):
            found = entry[method.lower()]
            named = [
                resolved(one)
                for one in (*entry.get("parameters", ()), *found.get("parameters", ()))
            ]
            return found, {one["name"] for one in named if one["in"] == "query"}
    return None


class Judge:
    """Listens to a fake; `problems` must be empty in the end, `seen` not."""

    def __init__(self, fake: FakeKubernetes) -> None:
        self.problems: list[str] = []
        self.seen = 0
        fake.app.after_request(self._hear)

    def _hear(self, response: Response) -> Response:
        where, told = f"{request.method} {request.path}", None
        self._asked(where)
        if response.is_streamed:
            response.response = self._stream(where, response.response)
        elif response.is_json:
            told = response.get_json()
        if told is not None and (response.status_code < 400 or "kind" in told):
            self._said(where, told)
        return response

    def _asked(self, where: str) -> None:
        found = operation(request.method, request.path)
        if found is None:
            self.problems.append(f"{where}: is not described")
            return
        self.problems += [
            f"{where}: asked with {name}, which is not described"
            for name in request.args
            if name not in found[1]
        ]
        body = request.get_json(force=True, silent=True)
        if request.data and body is None:
            self.problems.append(f"{where}: sent what is no JSON")
        if body is None:
            return
        if "requestBody" not in found[0]:
            self.problems.append(f"{where}: sent a body, and none is described")
            return
        kind = found[0]["x-kubernetes-group-version-kind"]
        if request.method == "PATCH":
            name = kinds()["/".join(filter(None, (kind["group"], kind["version"]))), kind["kind"]]
            self._judge(where, validator(name), without_none(body), "patched", unless="required")
        else:
            name = resolved(found[0]["requestBody"])["content"]
            reference = next(iter(name.values()))["schema"]["$ref"].rpartition("/")[2]
            self._judge(where, validator(reference), body, "sent")

    def _stream(self, where: str, lines: Any) -> Iterator[bytes]:
        """Each line is an event; what has been said is judged before it is."""
        try:
            for line in lines:
                if line:
                    event = json.loads(line)
                    if set(event) != {"type", "object"} or event["type"] not in (
                        "ADDED",
                        "MODIFIED",
                        "DELETED",
                        "BOOKMARK",
                        "ERROR",
                    ):
                        self.problems.append(
                            f"{where}: said an event of {sorted(event)}, {event.get('type')}"
                        )
                    self._said(where, event["object"])
                yield line
        finally:
            lines.close()

    def _said(self, where: str, told: Json) -> None:
        name = (
            UNNAMED.get(where.partition(" ")[2].rstrip("/"))
            if "kind" not in told
            else kinds().get((told.get("apiVersion", ""), told["kind"]))
        )
        if name is None:
            self.problems.append(f"{where}: said something of no kind: {told}"[:300])
        else:
            self._judge(where, validator(name), told, "said")

    def _judge(
        self, where: str, by: Draft4Validator, body: Any, what: str, unless: str = ""
    ) -> None:
        self.seen += 1
        self.problems += [
            f"{where}: {what} {error.json_path}: {error.message}"[:300]
            for error in by.iter_errors(body)
            if error.validator != unless
        ]


def without_none(node: Any) -> Any:
    """A merge patch names so what goes."""
    if isinstance(node, dict):
        return {key: without_none(value) for key, value in node.items() if value is not None}
    return node
