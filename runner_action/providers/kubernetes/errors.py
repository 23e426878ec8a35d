"""The cluster's errors as ours, chosen by what the caller does next.

A refusal is a `Status` with a reason:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json
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
        "Write several `cloud-type`, a longer `cloud-kubernetes-schedule-timeout`, or leave"
        " `cloud-spot` out."
    ),
    QuotaError: "Ask for a larger ResourceQuota of the namespace, or use a smaller `cloud-type`.",
    CredentialsError: (
        "`cml-runner permissions kubernetes`, with the inputs of this launch, prints the role that"
        " it needs."
    ),
    ConfigurationError: "Change the input named in the message.",
}


class Refused(Exception):
    """The API server refused a call."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
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


def kind_of(message: str, status: int = 0) -> type[ProviderError]:
    """The class of error for a refusal, by what the caller does next. The refusal may be of a call,
    or of a pod that a controller tried to create."""
    if "exceeded quota" in message:
        return QuotaError
    admission = (
        "violates PodSecurity",
        "admission webhook",
        "denied the request",
        "failed quota",
        "must specify",
        "LimitRange",
        "per Container",
        "per Pod",
    )
    if status in (401, 403) and not any(words in message for words in admission):
        return CredentialsError
    return ConfigurationError


def refused(message: str, doing: str, status: int = 0) -> ProviderError:
    kind = kind_of(message, status)
    hint = HINTS[kind]
    if "violates PodSecurity" in message:
        hint = (
            "The namespace has a Pod Security Standard that these inputs break: Docker beside the"
            " runner and some pod templates need another namespace."
        )
    elif status == 404 and message.startswith("namespaces"):
        hint = (
            "Write another `cloud-kubernetes-namespace`, or create this one: `kubectl create"
            " namespace …`."
        )
    elif "serviceaccount" in message and "not found" in message:
        hint = (
            "Create the service account of `cloud-permission-set` in this namespace: `kubectl"
            " create serviceaccount …`."
        )
    elif status == 401:
        hint = KEYS_HINT
    if status == 429 or status >= 500:
        return ProviderError(
            f"The cluster failed while {doing}: HTTP {status}: {message}", "Try again."
        )
    return kind(f"The cluster refused while {doing}: {message}", hint)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises the client's exceptions as ours."""
    try:
        yield
    except Refused as error:
        raise refused(error.message, doing, error.status) from error
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
