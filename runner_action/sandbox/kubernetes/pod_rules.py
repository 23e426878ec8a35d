"""What a Kubernetes API server refuses of metadata, pod templates and Secrets. Pure.

Its words, in https://github.com/kubernetes/kubernetes/blob/master: for pods and Secrets
pkg/apis/core/validation/validation.go, for metadata
staging/src/k8s.io/apimachinery/pkg/api/validation/objectmeta.go.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping

from runner_action.sandbox.kubernetes.nodes import amount
from runner_action.sandbox.kubernetes.shelf import Json

DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
HOST = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
KEY = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
DATA_KEY = r"[-._a-zA-Z0-9]+"
ENDS = "must start and end with an alphanumeric character"
USED = "regex used for validation is"
DOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    f" '.', and {ENDS} (e.g. 'example.com', {USED} '{DOMAIN}')"
)
HOST_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    f" {ENDS} (e.g. 'my-name',  or '123-abc', {USED} '{HOST}')"
)
LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, "
    f"'-', '_' or '.', and {ENDS} (e.g. 'MyValue',  or 'my_value',  or '12345', {USED} '{LABEL}')"
)
KEY_RULE = (
    f"must consist of alphanumeric characters, '-', '_' or '.', and {ENDS} (e.g."
    f" 'MyName',  or 'my.name',  or '123-abc', {USED} '{KEY}')"
)
DATA_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',"
    f"  or 'KEY_NAME',  or 'key-name', {USED} '{DATA_KEY}')"
)
SHORT, LONG = "must be no more than 63 bytes", "must be no more than 253 bytes"
ANNOTATION_BYTES = 256 << 10
SECRET_BYTES = 1 << 20
"""https://kubernetes.io/docs/concepts/configuration/secret/"""
OPERATORS = ("Equal", "Exists")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def wrong(where: str, value: str, rule: str) -> str:
    return f"{where}: Invalid value: {json.dumps(value)}: {rule}"


def named(where: str, value: str, pattern: str, rule: str, longest: int = 63) -> Iterable[str]:
    """A value that has to have a form."""
    if not re.fullmatch(pattern, value):
        yield wrong(where, value, rule)
    if len(value) > longest:
        yield wrong(where, value, SHORT if longest == 63 else LONG)


def key(where: str, value: str) -> Iterable[str]:
    """The name of a label or a taint."""
    for rule in broken(value):
        yield wrong(where, value, rule)


def broken(value: str) -> Iterable[str]:
    """The rules of names that may have a domain before them, as far as one breaks them."""
    *prefix, name = value.split("/")
    if len(prefix) > 1:
        example = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        yield f"a qualified name {KEY_RULE} {example}"
        return
    if prefix == [""]:
        yield "prefix part must be non-empty"
    elif prefix and not re.fullmatch(DOMAIN, prefix[0]):
        yield f"prefix part {DOMAIN_RULE}"
    if not name:
        yield "name part must be non-empty"
    if len(name) > 63:
        yield f"name part {SHORT}"
    if not re.fullmatch(KEY, name):
        yield f"name part {KEY_RULE}"


def pairs(where: str, labels: Mapping[str, str]) -> Iterable[str]:
    """Labels, or a selector of them."""
    for name, value in labels.items():
        yield from key(where, name)
        yield from named(where, value, LABEL, LABEL_RULE)


def metadata(where: str, meta: Json) -> Iterable[str]:
    yield from pairs(f"{where}.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    for name in annotations:
        for rule in broken(name.lower()):
            yield wrong(f"{where}.annotations", name, rule)
    if sum(len(text.encode()) for pair in annotations.items() for text in pair) > ANNOTATION_BYTES:
        yield f"{where}.annotations: Too long: may not be more than {ANNOTATION_BYTES} bytes"
    for owner in meta.get("ownerReferences") or ():
        yield from owned(f"{where}.ownerReferences", owner)


def owned(where: str, owner: Json) -> Iterable[str]:
    """Without its number, as the server says it."""
    version = owner.get("apiVersion") or ""
    if not version.rpartition("/")[2]:
        yield wrong(f"{where}.apiVersion", version, "version must not be empty")
    for part in ("kind", "name", "uid"):
        if not owner.get(part):
            yield wrong(f"{where}.{part}", "", "must not be empty")


def template(where: str, pod: Json) -> Iterable[str]:
    """A pod's metadata and spec."""
    yield from metadata(f"{where}.metadata".lstrip("."), pod.get("metadata") or {})
    spec = pod.get("spec") or {}
    where = f"{where}.spec".lstrip(".")
    volumes = [one.get("name", "") for one in spec.get("volumes") or ()]
    yield from unique(f"{where}.volumes", volumes)
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        for number, one in enumerate(spec.get(kind) or ()):
            yield from container(f"{where}.{kind}[{number}]", one, volumes, seen)
    yield from pairs(f"{where}.nodeSelector", spec.get("nodeSelector") or {})
    for number, one in enumerate(spec.get("tolerations") or ()):
        yield from toleration(f"{where}.tolerations[{number}]", one)


def unique(where: str, names: Iterable[str], seen: set[str] | None = None) -> Iterable[str]:
    """Names such as hosts have, none of them twice."""
    seen = set() if seen is None else seen
    for number, name in enumerate(names):
        place = f"{where}[{number}].name"
        yield from named(place, name, HOST, HOST_RULE)
        if name in seen:
            yield f"{place}: Duplicate value: {json.dumps(name)}"
        seen.add(name)


def container(where: str, one: Json, volumes: Iterable[str], seen: set[str]) -> Iterable[str]:
    for problem in unique("", [one.get("name", "")], seen):
        yield f"{where}.{problem.partition('.')[2]}"
    if not one.get("image"):
        yield f"{where}.image: Required value"
    for number, mount in enumerate(one.get("volumeMounts") or ()):
        if mount["name"] not in volumes:
            yield f"{where}.volumeMounts[{number}].name: Not found: {json.dumps(mount['name'])}"
    yield from resources(f"{where}.resources", one.get("resources") or {})


def resources(where: str, asked: Json) -> Iterable[str]:
    """What a vendor names cannot be given to two at once.
    https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/"""
    limits = asked.get("limits") or {}
    for name, quantity in (asked.get("requests") or {}).items():
        whole = "/" in name
        place = f"{where}.requests"
        if name not in limits:
            if whole:
                rule = "Limit must be set for non overcommitable resources"
                yield f"{where}.limits: Required value: {rule}"
        elif whole and amount(quantity) != amount(limits[name]):
            yield wrong(place, str(quantity), f"must be equal to {name} limit of {limits[name]}")
        elif amount(quantity) > amount(limits[name]):
            rule = f"must be less than or equal to {name} limit of {limits[name]}"
            yield wrong(place, str(quantity), rule)


def toleration(where: str, one: Json) -> Iterable[str]:
    """Without an operator it is `Equal`, without an effect it is for all of them."""
    said, value = one.get("operator") or "", one.get("value") or ""
    operator, effect = said or "Equal", one.get("effect") or EFFECTS[0]
    if one.get("key"):
        yield from key(f"{where}.key", one["key"])
    elif operator != "Exists":
        meaning = 'which means "match all values and all keys"'
        rule = f"operator must be Exists when `key` is empty, {meaning}"
        yield wrong(f"{where}.operator", said, rule)
    if operator == "Equal":
        yield from named(f"{where}.operator", value, LABEL, LABEL_RULE)
    if operator == "Exists" and value:
        rule = "value must be empty when `operator` is 'Exists'"
        yield wrong(f"{where}.operator", value, rule)
    for part, word, known in (("operator", operator, OPERATORS), ("effect", effect, EFFECTS)):
        if word not in known:
            supported = ", ".join(map(json.dumps, known))
            rule = f"Unsupported value: {json.dumps(word)}: supported values: {supported}"
            yield f"{where}.{part}: {rule}"


def secret(body: Json) -> Iterable[str]:
    """Of its data, read and unread."""
    said = {name: base64.b64decode(text) for name, text in (body.get("data") or {}).items()}
    said |= {name: text.encode() for name, text in (body.get("stringData") or {}).items()}
    for name in said:
        if not re.fullmatch(DATA_KEY, name):
            yield wrong(f"data[{name}]", name, DATA_KEY_RULE)
    if sum(map(len, said.values())) > SECRET_BYTES:
        yield f"data: Too long: may not be more than {SECRET_BYTES} bytes"
