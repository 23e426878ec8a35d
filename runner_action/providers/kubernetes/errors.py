"""The cluster's errors as ours, chosen by what the caller does next.

A refusal is a `Status` with a reason:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)

KEYS_HINT = (
    "Give a kubeconfig as KUBERNETES_CONFIGURATION or KUBECONFIG, or run the launcher in a pod with"
    " a service account; docs/kubernetes.md says how to make one."
)
HINTS: dict[type[ProviderError], str] = {
    CapacityError: (
        "Write a smaller `cloud-type`, such as `s`, or several; a longer"
        " `cloud-kubernetes-schedule-timeout`; or leave `cloud-spot` out."
    ),
    QuotaError: "Ask for a larger ResourceQuota of the namespace, or use a smaller `cloud-type`.",
    CredentialsError: (
        "`cml-runner permissions kubernetes`, with the inputs of this launch and its namespace as"
        " `cloud-kubernetes-namespace`, prints the role that it needs."
    ),
    ConfigurationError: "Change the input named in the message.",
}


class Refused(Exception):
    """The API server refused a call. `hint`: what to do, if more is known than the server says."""

    def __init__(self, status: int, text: str, hint: str = "") -> None:
        self.status = status
        self.hint = hint
        status_object = _object(text)
        self.reason = str(status_object.get("reason") or "")
        self.message = str(status_object.get("message") or text.strip()[:300])
        super().__init__(self.message)


def _object(text: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


TRANSIENT = re.compile(
    r"failed calling webhook|Internal error occurred|context deadline exceeded|i/o timeout"
    r"|etcdserver: |request did not complete within"
)
"""Of a webhook or an API server that did not answer: the Job controller tries again, with pauses of
up to ten minutes. https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy"""
QUOTA = "exceeded quota"
SECURITY_CONTEXT = "security context constraint"
ADMISSION: Mapping[str, str] = {
    "violates PodSecurity": (
        "The namespace has a Pod Security Standard that these inputs break: Docker beside the"
        " runner and some pod templates need another namespace."
    ),
    SECURITY_CONTEXT: (
        "OpenShift refuses what these inputs need: leave out `cloud-kubernetes-containers: docker`"
        " and the security context of `cloud-kubernetes-pod-template`, or have another constraint"
        " granted to the service account (`oc adm policy add-scc-to-user`)."
    ),
    r"limit to request ratio": (
        "A LimitRange of the namespace allows less between requests and limits (`kubectl describe"
        " limitrange`): write CPUs and MB, as in `cloud-type: 2-4096`, which are both, and let"
        " those of `guard` and `hand-over` be equal, in `cloud-kubernetes-pod-template`: `spec:"
        " {initContainers: [{name: guard, resources: {requests: {cpu: 500m, memory: 128Mi}, limits:"
        " {cpu: 500m, memory: 128Mi}}}, {name: hand-over, resources: …}]}`."
    ),
    r"maximum .* usage per": (
        "A LimitRange of the namespace allows less (`kubectl describe limitrange`): write a smaller"
        " `cloud-type`; CPUs and MB as in `2-4096` are requested and limited to the same amount."
    ),
    r"minimum .* usage per": (
        "A LimitRange of the namespace requires more (`kubectl describe limitrange`): write it as"
        " requests and limits of the containers `guard` and `hand-over`, too, in"
        " `cloud-kubernetes-pod-template`, as"
        " `spec: {initContainers: [{name: guard, resources: …}, {name: hand-over, resources: …}]}`."
    ),
    "must specify": (
        "A ResourceQuota of the namespace counts what some container does not specify: add it to"
        " `cloud-kubernetes-pod-template`, or create a LimitRange with defaults."
    ),
    "kyverno": (
        "A Kyverno policy refuses the pod; the message has its name and rule. Change that field"
        " with `cloud-kubernetes-pod-template`, or have a PolicyException created for it."
    ),
    "gatekeeper": (
        "A constraint of Gatekeeper refuses the pod; the message has its name. Change that field"
        " with `cloud-kubernetes-pod-template`, or have the namespace excluded from it."
    ),
    "admission webhook|ValidatingAdmissionPolicy|denied the request|LimitRange|failed quota": (
        "A rule of the cluster refuses the pod; the message has its name. Change the field that it"
        " names with `cloud-kubernetes-pod-template`, or use another `cloud-kubernetes-namespace`."
    ),
}
"""Patterns of what a cluster's admission says, and what helps; the first that fits counts.
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/,
https://kyverno.io/docs/, https://open-policy-agent.github.io/gatekeeper/website/docs/ and
https://docs.redhat.com/en/documentation/openshift_container_platform/4.18/html/authentication_and_authorization/managing-pod-security-policies
"""


def admission_hint(message: str) -> str:
    """What helps if a cluster's admission says so; empty if it is something else."""
    return next((hint for words, hint in ADMISSION.items() if re.search(words, message)), "")


def passes(message: str) -> bool:
    """Whether what a controller reports may be over when it tries again."""
    return TRANSIENT.search(message) is not None


def kind_of(message: str, status: int = 0) -> type[ProviderError]:
    """The class of error for a refusal, by what the caller does next. The refusal may be of a call,
    or of a pod that a controller tried to create."""
    if QUOTA in message:
        return QuotaError
    if status in (401, 403) and not admission_hint(message):
        return CredentialsError
    return ConfigurationError


def refused(message: str, doing: str, status: int = 0) -> ProviderError:
    if status == 429 or status >= 500:
        return ProviderError(
            f"The cluster failed while {doing}: HTTP {status}: {message}", "Try again."
        )
    if not status and passes(message):
        return ProviderError(
            f"The cluster failed while {doing}: {message}",
            "Try again. If a webhook did not answer, look whether the pods that serve it run.",
        )
    kind = kind_of(message, status)
    text = f"The cluster refused while {doing}: {message}"
    return kind(text, _hint(kind, message, status))


def _hint(kind: type[ProviderError], message: str, status: int) -> str:
    if status == 401:
        return KEYS_HINT
    if status == 404 and message.startswith("namespaces"):
        return (
            "Write another `cloud-kubernetes-namespace`, or create this one: `kubectl create"
            " namespace …`."
        )
    if "serviceaccount" in message and "not found" in message:
        return (
            "Create the service account of `cloud-permission-set` in this namespace: `kubectl"
            " create serviceaccount …`."
        )
    if kind is ConfigurationError:
        return admission_hint(message) or HINTS[kind]
    return HINTS[kind]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises the client's exceptions as ours."""
    try:
        yield
    except Refused as error:
        told = refused(error.message, doing, error.status)
        told.hint = error.hint or told.hint
        raise told from error
    except ConfigException as error:
        raise CredentialsError(f"The kubeconfig cannot be used: {error}", KEYS_HINT) from error
    except HTTPError as error:
        cause = error.reason if isinstance(error, MaxRetryError) else error
        if isinstance(cause, SSLError):
            raise CredentialsError(
                f"The cluster's certificate is not trusted while {doing}.",
                "Put `certificate-authority-data` into the kubeconfig.",
            ) from error
        hint = (
            "Check that it can be reached from here: a private cluster needs a launcher in its"
            " network."
        )
        raise ProviderError(
            f"The cluster did not answer while {doing}: {type(cause).__name__}.", hint
        ) from error
