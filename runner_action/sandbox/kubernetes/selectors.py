"""How a Kubernetes API server reads the selectors of lists and watches. Pure.

Its grammar and its words, in https://github.com/kubernetes/kubernetes/blob/master:
staging/src/k8s.io/apimachinery/pkg/labels/selector.go and pkg/fields/selector.go beside it; for
fields pkg/apis/core/v1/conversion.go and pkg/apis/batch/v1/conversion.go.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable

from runner_action.sandbox.kubernetes import pod_rules as pods

FIELDS = {
    "pods": {"status.phase", "spec.nodeName", "spec.restartPolicy"},
    "jobs": {"status.successful"},
    "secrets": {"type"},
    "events": {
        "involvedObject.uid",
        "involvedObject.name",
        "involvedObject.kind",
        "involvedObject.namespace",
        "reason",
        "type",
    },
}
"""By what each may be chosen besides its name:
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/"""
FIELD = re.compile(r"(.*?)(!=|==?)(.*)")
NAME = r"[^\s=!(),<>]+"
WORD = re.compile(rf"==|!=|[=!(),<>]|{NAME}")
ENDS = ("", ",")
OPERATORS = {"in": "In", "notin": "NotIn", "=": "In", "==": "In", "!=": "NotIn"}
"""Without `<` and `>`, which compare numbers: nothing here asks for them."""
Requirement = tuple[str, str, list[str]]
"""Key, operator as of a node affinity, values."""


def fields(resource: str, text: str) -> list[tuple[str, bool, str]]:
    """Path, whether it has to be that value, value. Raises ValueError, in the server's words."""
    found = []
    for part in filter(None, text.split(",")):
        match = FIELD.fullmatch(part)
        if not match:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
        path, sign, value = match.groups()
        if path not in {"metadata.name", "metadata.namespace"} | FIELDS[resource]:
            if resource == "jobs":
                raise ValueError(f"field label {json.dumps(path)} not supported for Job")
            raise ValueError(f"field label not supported: {path}")
        found.append((path, sign != "!=", value))
    return found


def labels(text: str) -> list[Requirement]:
    """Raises ValueError, in the server's words."""
    words = deque([*WORD.findall(text), ""])
    expected = "!, identifier, or 'end of string'"
    found: list[Requirement] = []
    while words[0] or found:
        if words[0] != "!" and not re.fullmatch(NAME, words[0]):
            raise ValueError(f"found '{words[0]}', expected: {expected}")
        try:
            found.append(requirement(words))
        except ValueError as error:
            raise ValueError(f"unable to parse requirement: {error}") from error
        end = words.popleft()
        if not end:
            break
        if end != ",":
            raise ValueError(f"found '{end}', expected: ',' or 'end of string'")
        expected = "identifier after ','"
    return found


def requirement(words: deque[str]) -> Requirement:
    """The next one, whose words are taken."""
    absent = words[0] == "!"
    if absent:
        words.popleft()
    key = named(words)
    valid(pods.key("<nil>", key))
    if absent:
        return key, "DoesNotExist", []
    if words[0] in ENDS:
        return key, "Exists", []
    operator = words.popleft()
    if operator not in OPERATORS:
        raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    values = [""]
    if operator in ("in", "notin"):
        values = bracketed(words)
    elif words[0] not in ENDS:
        values = [named(words)]
    for number, value in enumerate(values):
        valid(pods.named(f"values[{number}][{key}]", value, pods.LABEL, pods.LABEL_RULE))
    return key, OPERATORS[operator], values


def named(words: deque[str]) -> str:
    word = words.popleft()
    if not re.fullmatch(NAME, word):
        raise ValueError(f"found '{word}', expected: identifier")
    return word


def bracketed(words: deque[str]) -> list[str]:
    """Values with commas between them, each of which may be empty."""
    if (word := words.popleft()) != "(":
        raise ValueError(f"found '{word}' expected: '('")
    values = []
    while word != ")":
        values.append(words.popleft() if re.fullmatch(NAME, words[0]) else "")
        word = words.popleft()
        if word not in (",", ")"):
            raise ValueError(f"found '{word}', expected: ',' or ')'")
    return values


def valid(problems: Iterable[str]) -> None:
    for problem in problems:
        raise ValueError(problem)
