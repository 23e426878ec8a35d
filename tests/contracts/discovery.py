"""Google's description of Compute Engine, from the package that carries it, as an OpenAPI
description that knows no other field."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from tests.contracts.openapi import rewritten, trimmed

ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "object"}},
            }
        }
    },
    "description": "",
}
NUMBERS = {"int64", "uint64"}


def compute(*paths: str) -> dict[str, Any]:
    """As far as these paths of a project go."""
    text = (
        files("googleapiclient") / "discovery_cache" / "documents" / "compute.v1.json"
    ).read_text("utf-8")
    document = json.loads(text)
    found: dict[str, Any] = {}
    _collect(document["resources"], document, found)
    whole = {
        "openapi": "3.0.3",
        "info": {"title": "compute", "version": document["version"]},
        "paths": {
            path: entry
            for path, entry in found.items()
            if path.removeprefix("/compute/v1/projects/{project}") in paths
        },
        "components": {
            "schemas": {
                name: rewritten(schema, _schema) for name, schema in document["schemas"].items()
            }
        },
    }
    return trimmed(whole, "/")


def _collect(resources: dict[str, Any], document: dict[str, Any], found: dict[str, Any]) -> None:
    for resource in resources.values():
        for method in resource.get("methods", {}).values():
            if "response" not in method:
                continue  # of no use to a launch
            path = "/" + document["servicePath"] + method.get("flatPath", method["path"])
            parameters = {**document["parameters"], **method.get("parameters", {})}
            operation: dict[str, Any] = {
                "parameters": [_parameter(name, one) for name, one in parameters.items()],
                "responses": {"200": _content(method["response"]["$ref"]), "default": ERROR},
            }
            if "request" in method:
                operation["requestBody"] = {**_content(method["request"]["$ref"]), "required": True}
            found.setdefault(path, {})[method["httpMethod"].lower()] = operation
        _collect(resource.get("resources", {}), document, found)


def _content(name: str) -> dict[str, Any]:
    return {
        "description": "",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }


def _parameter(name: str, told: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in told.items()
        if key in ("type", "pattern", "enum", "minimum", "maximum", "format")
    }
    kept = {
        key: int(value) if key in ("minimum", "maximum") else value for key, value in kept.items()
    }
    _schema(kept)
    place = told.get("location", "query")
    return {
        "name": name,
        "in": place,
        "required": place == "path" or bool(told.get("required")),
        "schema": kept,
    }


def _schema(part: dict[str, Any]) -> None:
    """Google's words for what OpenAPI says otherwise; objects that name their fields have no
    others."""
    reference = part.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        for key in [key for key in part if key != "$ref"]:
            del part[key]
        part["$ref"] = f"#/components/schemas/{reference}"
        return
    if part.get("format") in NUMBERS and part.get("type") == "string":
        part["pattern"] = r"^-?\d+$"
        del part["format"]
    if isinstance(part.get("pattern"), str):
        part["pattern"] = f"^(?:{part['pattern'].removeprefix('^').removesuffix('$')})$"
    if part.get("type") == "any":
        del part["type"]
    if part.get("type") == "object" and isinstance(part.get("properties"), dict):
        part["additionalProperties"] = False
    if (
        isinstance(part.get("annotations"), dict)
        and not {"type", "$ref"} & part["annotations"].keys()
    ):
        del part["annotations"]
    for key in (
        "enumDescriptions",
        "enumDeprecated",
        "id",
        "description",
        "deprecated",
        "required",
    ):
        if not isinstance(part.get(key), dict):
            part.pop(key, None)
