"""The role that a launch needs, by its options: what the calls of this package ask for, and no
more. Pure. A test records every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import yaml

from runner_action.model import ForgeName
from runner_action.providers.kubernetes.options import Containers, options_of
from runner_action.request import CloudRequest

Rules = Mapping[tuple[str, str], tuple[str, ...]]
LAUNCHER: Rules = {
    ("batch", "jobs"): ("create", "get", "list", "patch", "delete"),
    ("", "secrets"): ("create", "get", "delete"),
    ("", "pods"): ("list", "watch", "delete"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
}
"""API group and resource -> verbs. A watch is a `watch` to the cluster, whatever is asked."""
GITHUB: Rules = {
    ("", "pods"): ("get", "list", "create", "delete"),
    ("", "pods/exec"): ("get", "create"),
    ("", "pods/log"): ("get", "list", "watch"),
    ("", "secrets"): ("get", "list", "create", "delete"),
}
GITLAB: Rules = {
    ("", "pods"): ("get", "list", "watch", "create", "delete"),
    ("", "pods/exec"): ("get", "create", "patch", "delete"),
    ("", "pods/attach"): ("get", "create", "patch", "delete"),
    ("", "pods/log"): ("get", "list"),
    ("", "secrets"): ("get", "create", "update", "delete"),
    ("", "serviceaccounts"): ("get",),
    ("", "services"): ("get", "create"),
    ("", "events"): ("list", "watch"),
}
"""Of the pod itself where its jobs are pods.
https://github.com/actions/runner-container-hooks/tree/main/packages/k8s#pre-requisites and
https://docs.gitlab.com/runner/executors/kubernetes/#configure-runner-api-permissions"""


def runners(forge: ForgeName) -> Rules:
    match forge:
        case ForgeName.GITHUB:
            return GITHUB
        case ForgeName.GITLAB:
            return GITLAB
        case _ as unknown:
            assert_never(unknown)


def text(request: CloudRequest, forge: ForgeName = ForgeName.GITHUB) -> str:
    """YAML for `kubectl apply -f -`: role and binding of the launcher, whose service account is
    called `cml-runner`, and, where its jobs are pods, of the runner."""
    documents = _role("cml-runner", "cml-runner", LAUNCHER, request)
    if options_of(request).containers is Containers.KUBERNETES:
        account = request.permission_set or "cml-runner-jobs"
        documents += _role("cml-runner-jobs", account, runners(forge), request)
    return yaml.safe_dump_all(documents, sort_keys=False)


def _role(name: str, account: str, rules: Rules, request: CloudRequest) -> list[dict[str, Any]]:
    namespace = options_of(request).namespace or "default"
    metadata = {"name": name, "namespace": namespace}
    allowed = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
        for (group, resource), verbs in rules.items()
    ]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": allowed,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": dict(metadata),
            "subjects": [subject],
            "roleRef": reference,
        },
    ]
