"""What the embedded API server refuses in the words of Kubernetes 1.34.1, in which each answer here
was read (tests/real/test_kubernetes_answers.py asks both again)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from runner_action.sandbox.kubernetes.api import FakeKubernetes

Json = dict[str, Any]
META = {"name": "train"}
POD = {"restartPolicy": "Never", "containers": [{"name": "runner", "image": "x"}]}
JOB: Json = {"metadata": META, "spec": {"template": {"spec": POD}}}
SECRET: Json = {"metadata": META}
NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
    " alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for"
    " validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
SCHEME = 'in scheme "pkg/runtime/scheme.go:110"'
OPERATORS = "in, notin, =, ==, !=, gt, lt"
KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',"
    "  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def job(**spec: Any) -> Json:
    return {**JOB, "spec": {**JOB["spec"], **spec}}


def pod(**spec: Any) -> Json:
    return job(template={"spec": {**POD, **spec}})


UNREADABLE = [
    (
        {**JOB, "kind": "Nope"},
        (
            'Nope in version "v1" cannot be handled as a Job: no kind "Nope" is registered for'
            f' version "batch/v1" {SCHEME}'
        ),
    ),
    (
        {**JOB, "kind": "Pod", "apiVersion": "v1"},
        (
            'Pod in version "v1" cannot be handled as a Job: converting (v1.Pod) to (batch.Job):'
            " unknown conversion"
        ),
    ),
    ([], "the object provided is unrecognized (must be of type Job)"),
    ({**JOB, "kind": 5}, "the object provided is unrecognized (must be of type Job)"),
    *(
        (body, f'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal {why}')
        for body, why in (
            (
                job(completions="x"),
                "string into Go struct field JobSpec.spec.completions of type int32",
            ),
            (
                job(completions=1.5),
                "number 1.5 into Go struct field JobSpec.spec.completions of type int32",
            ),
            (
                job(completions=1 << 31),
                "number 2147483648 into Go struct field JobSpec.spec.completions of type int32",
            ),
            (
                job(activeDeadlineSeconds=True),
                "bool into Go struct field JobSpec.spec.activeDeadlineSeconds of type int64",
            ),
            (
                {**JOB, "metadata": {**META, "labels": {"a.b/c": 1}}},
                "number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                pod(containers={}),
                (
                    "object into Go struct field PodSpec.spec.template.spec.containers of type"
                    " []v1.Container"
                ),
            ),
            (
                pod(tolerations=[{"key": 1}]),
                (
                    "number into Go struct field Toleration.spec.template.spec.tolerations.key of"
                    " type string"
                ),
            ),
        )
    ),
]


def invalid(field: str, message: str) -> Json:
    return {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": field}


TOLERATION = "spec.template.spec.tolerations[0].operator"
SELECTOR = "spec.template.spec.nodeSelector"
OWNERS = "metadata.ownerReferences"
INVALID: list[tuple[str, Json, list[Json]]] = [
    (
        "jobs",
        pod(tolerations=[{"operator": "Equal"}]),
        [
            invalid(
                TOLERATION,
                '"Equal": operator must be Exists when `key` is empty, which means "match all'
                ' values and all keys"',
            )
        ],
    ),
    (
        "jobs",
        pod(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        [invalid(TOLERATION, "\"b\": value must be empty when `operator` is 'Exists'")],
    ),
    (
        "jobs",
        pod(nodeSelector={"a/b/c": "x", "/c": "x", "a/": "x"}),
        [
            invalid(
                SELECTOR,
                f'"a/b/c": a qualified name {NAME_RULE} with an optional DNS subdomain prefix and'
                " '/' (e.g. 'example.com/MyName')",
            ),
            invalid(SELECTOR, '"/c": prefix part must be non-empty'),
            invalid(SELECTOR, '"a/": name part must be non-empty'),
            invalid(SELECTOR, f'"a/": name part {NAME_RULE}'),
        ],
    ),
    (
        "secrets",
        {**SECRET, "data": {"a b": ""}},
        [invalid("data[a b]", f'"a b": {KEY_RULE}')],
    ),
    (
        "secrets",
        {"metadata": {**META, "ownerReferences": [{"apiVersion": "a/"}]}},
        [
            invalid(f"{OWNERS}.apiVersion", '"a/": version must not be empty'),
            invalid(f"{OWNERS}.kind", '"": must not be empty'),
            invalid(f"{OWNERS}.name", '"": must not be empty'),
            invalid(f"{OWNERS}.uid", '"": must not be empty'),
        ],
    ),
]
SELECTORS = [
    ("a b", f"unable to parse requirement: found 'b', expected: {OPERATORS}"),
    ("a in b", "unable to parse requirement: found 'b' expected: '('"),
    ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
    ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
    ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
    ("a=b c", "found 'c', expected: ',' or 'end of string'"),
    ("!a=b", "found '=', expected: ',' or 'end of string'"),
    ("a,", "found '', expected: identifier after ','"),
    (",a", "found ',', expected: !, identifier, or 'end of string'"),
    ("-a", f'unable to parse requirement: <nil>: Invalid value: "-a": name part {NAME_RULE}'),
]


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    made = FakeKubernetes()
    yield made
    made.close()


def told(fake: FakeKubernetes, method: str, resource: str, body: Any = None, **query: str) -> Json:
    """The Status that a request is refused with."""
    root = "apis/batch/v1" if resource == "jobs" else "api/v1"
    answer = fake.app.test_client().open(
        f"/{root}/namespaces/ci/{resource}",
        method=method,
        json=copy.deepcopy(body),
        query_string=query,
        headers={"Authorization": f"Bearer {fake.token}"},
    )
    status: Json = answer.get_json()
    assert (status["kind"], status["code"]) == ("Status", answer.status_code)
    assert fake.alive() == []
    return status


@pytest.mark.parametrize(("body", "message"), UNREADABLE)
def test_a_body_that_cannot_be_read(fake: FakeKubernetes, body: Any, message: str) -> None:
    status = told(fake, "POST", "jobs", body)
    assert (status["code"], status["reason"], status["message"]) == (400, "BadRequest", message)
    assert "details" not in status


@pytest.mark.parametrize(("resource", "body", "causes"), INVALID)
def test_each_cause_has_its_field_its_reason_and_its_words(
    fake: FakeKubernetes, resource: str, body: Json, causes: list[Json]
) -> None:
    status = told(fake, "POST", resource, body)
    kind, group = ("Job", {"group": "batch"}) if resource == "jobs" else ("Secret", {})
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["details"] == {"name": "train", **group, "kind": kind, "causes": causes}
    assert all(f"{one['field']}: {one['message']}" in status["message"] for one in causes)


def test_what_has_no_name_has_none_in_the_details(fake: FakeKubernetes) -> None:
    details = told(fake, "POST", "jobs", {})["details"]
    assert "name" not in details
    assert next(one["field"] for one in details["causes"]) == "metadata.name"


@pytest.mark.parametrize(("method", "resource", "code"), [("PUT", "jobs", 405), ("GET", "x", 404)])
def test_what_is_not_served_has_no_details(
    fake: FakeKubernetes, method: str, resource: str, code: int
) -> None:
    status = told(fake, method, resource, {} if method == "PUT" else None)
    assert (status["code"], status["details"]) == (code, {})


@pytest.mark.parametrize(("selector", "message"), SELECTORS)
def test_a_selector_of_labels(fake: FakeKubernetes, selector: str, message: str) -> None:
    status = told(fake, "GET", "jobs", labelSelector=selector)
    assert (status["code"], status["message"]) == (400, message)


@pytest.mark.parametrize(
    ("resource", "selector", "message"),
    [
        ("jobs", "spec.x=1", 'field label "spec.x" not supported for Job'),
        ("pods", "spec.x=1", "field label not supported: spec.x"),
        ("pods", "type", "invalid selector: 'type'; can't understand 'type'"),
    ],
)
def test_a_selector_of_fields(
    fake: FakeKubernetes, resource: str, selector: str, message: str
) -> None:
    status = told(fake, "GET", resource, fieldSelector=selector)
    assert (status["code"], status["message"]) == (400, message)
