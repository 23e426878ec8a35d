"""Azure's own types: whatever a fake Azure is sent and says is held to them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from flask import Response, request
from jsonschema import Draft7Validator

from runner_action.sandbox.clouds.azure.arm import FakeAzure
from tests.descriptions import described

Json = dict[str, Any]
FILES = {
    "Microsoft.Compute": "azure-compute-2026-04-01.schema.json",
    "Microsoft.Network": "azure-network-2025-09-01.schema.json",
}
KINDS = {
    "virtualmachines": "Microsoft.Compute/virtualMachines",
    "networksecuritygroups": "Microsoft.Network/networkSecurityGroups",
    "virtualnetworks": "Microsoft.Network/virtualNetworks",
    "publicipaddresses": "Microsoft.Network/publicIPAddresses",
    "networkinterfaces": "Microsoft.Network/networkInterfaces",
}
FREE = ("vmSize", "networkApiVersion")
"""Whose listed values stop at old ones."""


@cache
def validator(kind: str, answer: bool) -> Draft7Validator:
    """Of a resource. What only Azure sets may not be sent."""
    document = described(FILES[kind.partition("/")[0]])

    def walk(node: Any, name: str = "") -> Any:
        if isinstance(node, list):
            return [walk(one, name) for one in node]
        if not isinstance(node, dict):
            return node
        found: dict[str, Any] = {}
        for key, value in node.items():
            if key == "properties":
                found[key] = {
                    one: walk(schema, one)
                    for one, schema in value.items()
                    if answer or not schema.get("readOnly")
                }
            elif key == "x-known-values":
                found.update({} if name in FREE else {"enum": value})
            else:
                found[key] = walk(value, name)
        return found

    return Draft7Validator(
        {"$ref": document["resources"][kind]["$ref"], "definitions": walk(document["definitions"])}
    )


TAGS = 50
TAG_NAME = 512
TAG_VALUE = 256
"""https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""
CUSTOM_DATA = 65535
"""Bytes before Base64. https://learn.microsoft.com/azure/virtual-machines/custom-data"""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
"""Of what a machine needs: 64 characters.
https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules"""


def beyond(path: str, body: Json) -> Iterator[str]:
    """What the types do not say: what is longer, or more, than Azure takes."""
    name, tags = path.rpartition("/")[2], body.get("tags", {})
    if not NAME.fullmatch(name):
        yield f"{name} is no name"
    if len(tags) > TAGS:
        yield f"{len(tags)} tags"
    for key, value in tags.items():
        if len(key) > TAG_NAME or re.search(r"[<>%&\\?/]", key) or len(value) > TAG_VALUE:
            yield f"the tag {key} is {len(value)} long"
    data = body["properties"].get("osProfile", {}).get("customData", "")
    if len(base64.b64decode(data, validate=True)) > CUSTOM_DATA:
        yield "customData is too long"


class Judge:
    """Listens to a fake; `problems` must be empty in the end. `machines`: how many were created;
    after any, `seen` must not be 0."""

    def __init__(self, fake: FakeAzure) -> None:
        self.problems: list[str] = []
        self.seen = 0
        self.machines = 0
        fake.app.after_request(self._hear)

    def _hear(self, response: Response) -> Response:
        parts = request.path.lower().split("/")
        created = request.method == "PUT" and parts[-2] == "virtualmachines"
        self.machines += created and response.status_code < 400
        kind = next(
            (KINDS[part] for part in parts[-2:] if part in KINDS and "resourcegroups" in parts),
            None,
        )
        if kind is None or not response.is_json or response.status_code >= 400:
            return response
        told = response.get_json()
        if request.method == "PUT":
            self.problems += [
                f"PUT {request.path}: {problem}"[:300]
                for problem in beyond(request.path, request.get_json())
            ]
            self._judge(
                validator(kind, answer=False),
                {**request.get_json(), "name": request.path.rpartition("/")[2]},
                "sent",
            )
        for one in told.get("value", [told]):
            self._judge(validator(kind, answer=True), one, "said")
        return response

    def _judge(self, by: Draft7Validator, body: Any, what: str) -> None:
        self.seen += 1
        self.problems += [
            f"{request.method} {request.path}: {what} {error.json_path}: {error.message}"[:300]
            for error in by.iter_errors(body)
        ]
