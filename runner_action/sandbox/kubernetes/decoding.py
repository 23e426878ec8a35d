"""What a Kubernetes API server cannot read of a request's body, before it judges any of it. Pure.

Go's types of what is read here: https://github.com/kubernetes/api/blob/master, batch/v1/types.go
and core/v1/types.go. Its words for another type: `UnmarshalTypeError` of
https://pkg.go.dev/encoding/json. Names that are not here are not looked at: to know all of them
takes Kubernetes' own description, to which the tests hold whatever is sent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner_action.sandbox.kubernetes.nodes import UNITS
from runner_action.sandbox.kubernetes.rules import KINDS

QUANTITY = re.compile(rf"\d+(\.\d+)?({'|'.join(filter(None, UNITS))})?")
QUANTITY_RULE = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
SCHEME = "pkg/runtime/scheme.go:110"
"""As Kubernetes 1.34.1 says it."""
NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
"""JSON's types, in Go's words."""


@dataclass(frozen=True)
class Type:
    """One of Go: the JSON that it is read from; what is in it, by name, or the same for each."""

    name: str
    json: type
    parts: Mapping[str, Type] = field(default_factory=dict)
    each: Type | None = None


def struct(name: str, /, **parts: Type) -> Type:
    return Type(f"v1.{name}", dict, parts)


def several(one: Type) -> Type:
    return Type(f"[]{one.name}", list, each=one)


def mapped(one: Type) -> Type:
    return Type(f"map[string]{one.name}", dict, each=one)


TEXT, BOOL = Type("string", str), Type("bool", bool)
INT, LONG = Type("int32", int), Type("int64", int)
BYTES = Type("[]uint8", str)
AMOUNT = Type("resource.Quantity", str)
AMOUNTS = Type("v1.ResourceList", dict, each=AMOUNT)
OWNER = struct("OwnerReference", apiVersion=TEXT, kind=TEXT, name=TEXT, uid=Type("types.UID", str))
META = struct(
    "ObjectMeta",
    name=TEXT,
    generateName=TEXT,
    namespace=TEXT,
    labels=mapped(TEXT),
    annotations=mapped(TEXT),
    ownerReferences=several(OWNER),
)
CONTAINER = struct(
    "Container",
    name=TEXT,
    image=TEXT,
    resources=struct("ResourceRequirements", limits=AMOUNTS, requests=AMOUNTS),
    volumeMounts=several(struct("VolumeMount", name=TEXT)),
)
TOLERATION = struct(
    "Toleration",
    key=TEXT,
    operator=Type("v1.TolerationOperator", str),
    value=TEXT,
    effect=Type("v1.TaintEffect", str),
    tolerationSeconds=LONG,
)
POD = struct(
    "PodSpec",
    volumes=several(struct("Volume", name=TEXT)),
    initContainers=several(CONTAINER),
    containers=several(CONTAINER),
    restartPolicy=Type("v1.RestartPolicy", str),
    terminationGracePeriodSeconds=LONG,
    nodeSelector=mapped(TEXT),
    tolerations=several(TOLERATION),
)
JOB = struct(
    "JobSpec",
    parallelism=INT,
    completions=INT,
    completionMode=Type("v1.CompletionMode", str),
    activeDeadlineSeconds=LONG,
    backoffLimit=INT,
    backoffLimitPerIndex=INT,
    maxFailedIndexes=INT,
    ttlSecondsAfterFinished=INT,
    suspend=BOOL,
    template=struct("PodTemplateSpec", metadata=META, spec=POD),
)
TYPES = {
    "jobs": struct("Job", metadata=META, spec=JOB),
    "pods": struct("Pod", metadata=META, spec=POD),
    "secrets": struct("Secret", metadata=META, data=mapped(BYTES), stringData=mapped(TEXT)),
    "events": struct("Event", metadata=META),
}


def unreadable(resource: str, body: Any) -> str:
    """Why a body is no object of that resource; empty if it is one."""
    group, kind = KINDS[resource]
    version = f"{group}/v1".lstrip("/")
    unrecognized = f"the object provided is unrecognized (must be of type {kind})"
    if not isinstance(body, dict):
        return unrecognized
    said = body.get("kind") or kind
    of = body.get("apiVersion") or version
    if not isinstance(said, str) or not isinstance(of, str):
        return unrecognized
    its_group, _, its_version = of.rpartition("/")
    if (said, of) == (kind, version):
        why = misread(TYPES[resource], body, "", "")
    elif (its_group, said) in KINDS.values() and its_version == "v1":
        why = f"converting (v1.{said}) to ({group or 'core'}.{kind}): unknown conversion"
    else:
        why = f'no kind "{said}" is registered for version "{of}" in scheme "{SCHEME}"'
    head = f'{said} in version "{its_version}" cannot be handled as a {kind}'
    return f"{head}: {why}" if why else ""


def misread(wanted: Type, value: Any, owner: str, path: str) -> str:
    """What of a value is of another type, or of no form. `owner`: Go's name of what it is in;
    `path`: without the numbers in lists and the keys of maps."""
    if value is None:
        return ""
    if wanted is AMOUNT:
        return "" if QUANTITY.fullmatch(str(value)) else QUANTITY_RULE
    given = type(value)
    if given is not wanted.json or too_large(wanted, value):
        said = NAMES[given]
        if wanted.json is int and said == "number":
            said = f"number {value}"
        where = f"Go struct field {owner}.{path}"
        return f"json: cannot unmarshal {said} into {where} of type {wanted.name}"
    if wanted is BYTES:
        return "" if encoded(value) else "illegal base64 data at input byte 0"
    found: Iterable[str] = ()
    if wanted.each:
        many = value.values() if given is dict else value
        found = (misread(wanted.each, one, owner, path) for one in many)
    elif wanted.parts:
        within = wanted.name.removeprefix("v1.")
        found = (
            misread(wanted.parts[name], value[name], within, f"{path}.{name}".lstrip("."))
            for name in value
            if name in wanted.parts
        )
    return next(filter(None, found), "")


def too_large(wanted: Type, value: Any) -> bool:
    return wanted is INT and not -(2**31) <= value < 2**31


def encoded(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
