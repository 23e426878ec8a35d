"""What a Kubernetes API server takes, what it makes of it, and how it refuses."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from typing import Any

from flask import request

from runner_action.sandbox.kubernetes import pod_rules as pods
from runner_action.sandbox.kubernetes.nodes import OVER, holds
from runner_action.sandbox.kubernetes.selectors import fields, labels
from runner_action.sandbox.kubernetes.shelf import Choice, Json

KINDS = {
    "pods": ("", "Pod"),
    "secrets": ("", "Secret"),
    "events": ("", "Event"),
    "jobs": ("batch", "Job"),
}
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0",
    "gitCommit": "0" * 40,
    "gitTreeState": "clean",
    "buildDate": "2026-04-22T12:00:00Z",
}
CAUSES = {
    "Invalid value": "FieldValueInvalid",
    "Required value": "FieldValueRequired",
    "Duplicate value": "FieldValueDuplicate",
    "Unsupported value": "FieldValueNotSupported",
    "Not found": "FieldValueNotFound",
    "Too long": "FieldValueTooLong",
}
"""https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/validation/field/errors.go"""
MOST_BYTES = 3 << 20
"""Of a request: `MaxRequestBodyBytes` of
https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/server/config.go"""


class Failed(Exception):
    """Ends a request with a Status."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        head = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        self.status: Json = head if details is None else {**head, "details": details}


def full(resource: str) -> str:
    return f"{resource}.{KINDS[resource][0]}" if KINDS[resource][0] else resource


def about(resource: str, name: str | None) -> Json:
    """A Status' details."""
    group = KINDS[resource][0]
    return {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        "kind": resource,
    }


def refused(resource: str, name: str, problems: Iterable[str]) -> Failed:
    """All that is wrong with an object, each `field: kind of problem…`."""
    group, kind = KINDS[resource]
    each = list(dict.fromkeys(problems))
    why = each[0] if len(each) == 1 else f"[{', '.join(each)}]"
    causes = [cause(one) for one in each]
    details = {**about(resource, name), "kind": kind, "causes": causes}
    label = f"{kind}.{group}" if group else kind
    return Failed(422, "Invalid", f'{label} "{name}" is invalid: {why}', details)


def cause(problem: str) -> Json:
    where, _, message = problem.partition(": ")
    return {"reason": CAUSES[message.partition(":")[0]], "message": message, "field": where}


def merged(one: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(one) if isinstance(one, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept


def choice(resource: str, space: str) -> Choice:
    """By the request's namespace and selectors."""
    tests: list[Choice] = [lambda one: bool(one["metadata"]["namespace"] == space)]
    try:
        of_fields = fields(resource, request.args.get("fieldSelector", ""))
        of_labels = labels(request.args.get("labelSelector", ""))
    except ValueError as error:
        raise Failed(400, "BadRequest", str(error)) from error
    for path, same, value in of_fields:
        tests.append(
            lambda one, path=path, same=same, value=value: (  # type: ignore[misc]
                (str(found(one, path)) == value) is same
            )
        )
    for key, operator, values in of_labels:
        tests.append(
            lambda one, key=key, operator=operator, values=values: holds(  # type: ignore[misc]
                operator, one["metadata"].get("labels", {}).get(key), values
            )
        )
    return lambda one: all(test(one) for test in tests)


def found(one: Json, path: str) -> Any:
    value: Any = one
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return value


def invalid(resource: str, body: Json) -> Iterable[str]:
    """What a real one would refuse of it, in its words."""
    meta = body["metadata"]
    name = body["metadata"].get("name", "")
    if not name:
        yield "metadata.name: Required value: name or generateName is required"
    else:
        yield from pods.named("metadata.name", name, pods.DOMAIN, pods.DOMAIN_RULE, 253)
    yield from pods.metadata("metadata", meta)
    if resource == "jobs":
        yield from invalid_job(name, body.get("spec", {}))
    if resource == "pods":
        yield from pods.template("", {"spec": body.get("spec", {})})
    if resource == "secrets":
        yield from pods.secret(body)


def invalid_job(name: str, spec: Json) -> Iterable[str]:
    indexed = spec.get("completionMode") == "Indexed"
    policy = spec.get("template", {}).get("spec", {}).get("restartPolicy", "Always")
    if indexed and spec.get("completions") is None:
        yield "spec.completions: Required value: when completion mode is Indexed"
    elif indexed and spec["completions"]:
        host = f"{name}-{spec['completions'] - 1}"
        if list(pods.named("", host, pods.HOST, "")):
            yield (
                f"metadata.name: Invalid value: {json.dumps(name)}: will not able to create pod"
                f" with invalid DNS label: {host}"
            )
    yield from invalid_limits(spec, indexed)
    for number in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ):
        if (spec.get(number) or 0) < 0:
            yield (
                f"spec.{number}: Invalid value: {spec[number]}: must be greater than or equal to 0"
            )
    if not spec.get("template", {}).get("spec", {}).get("containers"):
        yield "spec.template.spec.containers: Required value"
    if len(name) > 63:
        yield (
            f"spec.template.labels: Invalid value: {json.dumps(name)}: must be no more than 63"
            " bytes"
        )
    if policy not in ("Never", "OnFailure"):
        yield 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    yield from pods.template("spec.template", spec.get("template", {}))


def invalid_limits(spec: Json, indexed: bool) -> Iterable[str]:
    """Of how many pods of a Job may fail."""
    failed = spec.get("maxFailedIndexes")
    if failed is not None and failed > (spec.get("completions") or 0):
        yield (
            f"spec.maxFailedIndexes: Invalid value: {failed}: must be less than or equal to"
            " completions"
        )
    if not indexed and "backoffLimitPerIndex" in spec:
        yield (
            f"spec.backoffLimitPerIndex: Invalid value: {spec['backoffLimitPerIndex']}: requires"
            " indexed completion mode"
        )


def settled(resource: str, body: Json) -> Json:
    """With what the server itself sets, and without what is not the caller's."""
    group, kind = KINDS[resource]
    for part in (
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        body["metadata"].pop(part, None)
    made = {**body, "kind": kind, "apiVersion": f"{group}/v1" if group else "v1"}
    if resource == "secrets":
        said = {
            name: base64.b64encode(value.encode()).decode()
            for name, value in made.pop("stringData", {}).items()
        }
        made = {"type": "Opaque", **made, "data": {**made.get("data", {}), **said}}
    if resource == "pods":
        made.update(spec=settled_pod(made["spec"]), status={"phase": "Pending"})
    if resource == "jobs":
        number = str(uuid.uuid4())
        spec = made["spec"]
        limits = {
            "backoffLimit": 2147483647 if "backoffLimitPerIndex" in spec else 6,
            "suspend": False,
            "completionMode": "NonIndexed",
        }
        counts = (
            {"parallelism": 1}
            if "completions" in spec or "parallelism" in spec
            else {"parallelism": 1, "completions": 1}
        )
        labels = {"batch.kubernetes.io/controller-uid": number, "controller-uid": number}
        labels |= {
            "batch.kubernetes.io/job-name": body["metadata"]["name"],
            "job-name": body["metadata"]["name"],
        }
        template = {
            **spec["template"],
            "metadata": {**spec["template"].get("metadata", {})},
            "spec": settled_pod(spec["template"]["spec"]),
        }
        template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), **labels}
        selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": number}}
        made["spec"] = {
            **counts,
            **limits,
            "podReplacementPolicy": "TerminatingOrFailed",
            **spec,
            "selector": selector,
            "template": template,
        }
        made["metadata"].update(uid=number)
        made["metadata"].setdefault("labels", template["metadata"]["labels"])
        made["status"] = {}
    return made


def settled_pod(spec: Json) -> Json:
    """What is not asked of a resource is as much as its limit."""
    plain = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
    }
    made = {
        **plain,
        "serviceAccountName": "default",
        "serviceAccount": spec.get("serviceAccountName", "default"),
        "securityContext": {},
        **spec,
    }
    for kind in ("initContainers", "containers"):
        if kind in made:
            made[kind] = [settled_container(one) for one in made[kind]]
    return made


def settled_container(one: Json) -> Json:
    plain = {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        **one,
    }
    if limits := one.get("resources", {}).get("limits"):
        plain["resources"] = {
            **one["resources"],
            "requests": {**limits, **one["resources"].get("requests", {})},
        }
    else:
        plain.setdefault("resources", {})
    return plain


def ended(kind: str, one: Json) -> bool:
    if kind == "job":
        return any(
            condition["type"] in ("Complete", "Failed")
            for condition in one["status"].get("conditions") or ()
        )
    return kind == "pod" and one["status"]["phase"] in OVER
