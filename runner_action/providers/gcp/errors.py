"""Compute Engine's errors as ours, chosen by what the caller does next.

Codes of operations:
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation
Reasons of responses: https://cloud.google.com/resource-manager/docs/core_errors
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError, TransportError
from requests.exceptions import RequestException

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)

CAPACITY = {
    *(
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "STOCKOUT",
        "RESOURCE_POOL_EXHAUSTED",
    ),
    *("IP_SPACE_EXHAUSTED", "IP_SPACE_EXHAUSTED_WITH_DETAILS"),  # of the subnetwork
}
NOT_IN_ZONE = re.compile(
    r"(acceleratorTypes|machineTypes)/\S+ was not found|[Mm]achine type with name \S+ does not"
    r" exist in zone"
)
"""The answer to a creation in a zone without that type, where the credentials may not ask which
zone has it."""
QUOTA = {
    "QUOTA_EXCEEDED",
    "quotaExceeded",
    "QUOTA_EXCEEDED_RATE",
    "limitExceeded",
    "LIMIT_EXCEEDED",
}
CREDENTIALS = {
    *(
        "forbidden",
        "accessNotConfigured",
        "SERVICE_DISABLED",
        "authError",
        "required",
        "insufficientPermissions",
    ),
    *("UNAUTHENTICATED", "PERMISSION_DENIED", "PERMISSIONS_ERROR", "SERVICE_ACCOUNT_ACCESS_DENIED"),
}
PASSING = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "backendError",
    "internalError",
    "INTERNAL_ERROR",
    "RATE_LIMIT_EXCEEDED",
}
BUSY = (429, 500, 502, 503, 504)
"""Statuses of responses."""
NOT_YET = "resourceNotReady"
"""Of a machine that is being created or deleted: it can be deleted in a moment."""
HINTS: dict[type[ProviderError], str] = {
    CapacityError: (
        "Try another `cloud-region` or `cloud-type`, list several, or leave `cloud-spot` out."
    ),
    QuotaError: "Ask for more at the console's page Quotas, or use another `cloud-region`.",
    CredentialsError: (
        "The launcher needs roles/compute.instanceAdmin.v1 in the project; with `cloud-ssh-private`"
        " also roles/compute.securityAdmin."
    ),
    ConfigurationError: "Change the input named in the message.",
    ProviderError: "Try again.",
}
SPECIAL: tuple[tuple[str, str], ...] = (
    (
        r"(?i)actAs|serviceAccountUser|SERVICE_ACCOUNT_ACCESS_DENIED",
        (
            "The launcher needs iam.serviceAccounts.actAs on the service account of"
            " `cloud-permission-set`: role roles/iam.serviceAccountUser."
        ),
    ),
    (
        r"SERVICE_DISABLED|accessNotConfigured",
        (
            "Enable the Compute Engine API of this project: `gcloud services enable"
            " compute.googleapis.com`."
        ),
    ),
    (
        r"compute\.vmExternalIpAccess",
        (
            "External addresses are forbidden: add `cloud-gcp-private`; the network then needs"
            " Cloud NAT, or the runner needs a proxy."
        ),
    ),
    (
        r"networks/\S+ was not found|resource\.networkInterfaces",
        (
            "Write a network of this project, or a whole path, as `cloud-gcp-network` or"
            " `cloud-gcp-subnetwork`."
        ),
    ),
)
"""By a pattern of codes and message, hints that are more specific than those of a class."""
KEYS_HINT = (
    "Set GOOGLE_APPLICATION_CREDENTIALS_DATA to the text of a key, its Base64, or its path;"
    " better, without keys: google-github-actions/auth before this step on GitHub, `id_tokens` on"
    " GitLab (gitlab-component/examples/google-cloud.yml)."
)


def kind_of(codes: Sequence[str], message: str = "", status: int = 0) -> type[ProviderError]:
    """The class of error for these codes, by what the caller does next."""
    for known, kind in (
        (CAPACITY, CapacityError),
        (QUOTA, QuotaError),
        (PASSING, ProviderError),
        (CREDENTIALS, CredentialsError),
    ):
        if known & set(codes):
            return kind
    if NOT_IN_ZONE.search(message):
        return CapacityError
    if status in (401, 403):
        return CredentialsError
    return ProviderError if status in BUSY else ConfigurationError


def codes_of(error: GoogleAPICallError) -> list[str]:
    """The reasons in the body of a response, and in its details."""
    listed = [
        str(entry.get("reason", "")) for entry in error.errors or () if isinstance(entry, dict)
    ]
    return [
        code
        for code in [
            *listed,
            *re.findall(r"'reason': '([A-Z_]+)'", str(error.details or "")),
            str(error.reason or ""),
        ]
        if code
    ]


def passes(error: Exception) -> bool:
    """Whether an error is transient: no answer, or one that says no more than `not now`."""
    if isinstance(error, GoogleAPICallError):
        return bool(PASSING & set(codes_of(error))) or (error.code or 0) in BUSY
    return isinstance(error, RequestException | TransportError)


def refused(codes: Sequence[str], message: str, doing: str, status: int = 0) -> ProviderError:
    kind = kind_of(codes, message, status)
    hint = next(
        (special for words, special in SPECIAL if re.search(words, f"{' '.join(codes)} {message}")),
        HINTS[kind],
    )
    return kind(
        f"Google Cloud refused while {doing}: {', '.join(codes) or status}: {message}", hint
    )


def translate(error: Exception, doing: str) -> ProviderError:
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        return translate(error.cause, doing)
    if not isinstance(error, GoogleAPICallError | GoogleAuthError) or isinstance(
        error, TransportError
    ):
        return ProviderError(
            f"Google Cloud did not answer while {doing}: {type(error).__name__}.",
            "Try again, and check that compute.googleapis.com can be reached from here.",
        )
    if isinstance(error, GoogleAuthError):
        # Its messages name files and addresses, never keys; but the token service may quote the
        # request.
        return CredentialsError(
            f"Google Cloud's credentials do not work while {doing}: {type(error).__name__}.",
            KEYS_HINT,
        )
    # The SDK puts method and address before Google's message.
    message = re.sub(r"^[A-Z]+ https?://\S+: ", "", str(error.message))
    return refused(codes_of(error), message, doing, int(error.code or 0))


def of_operation(operation: Any, doing: str) -> ProviderError:
    """The error of an operation that ended with one."""
    errors = list(operation.error.errors)
    codes = [entry.code for entry in errors if entry.code]
    details = [detail for entry in errors for detail in entry.error_details]
    messages = [
        *(entry.message for entry in errors),
        *(detail.localized_message.message for detail in details),
    ]
    messages += [
        f"other zones have it: {zones}"
        for detail in details
        if (zones := detail.error_info.metadatas.get("zonesAvailable"))
    ]
    message = (
        "; ".join(dict.fromkeys(text for text in messages if text)) or operation.http_error_message
    )
    return refused(codes, message, doing, int(operation.http_error_status_code or 0))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises the SDK's exceptions as ours."""
    try:
        yield
    except (GoogleAPICallError, GoogleAuthError, RetryError, RequestException) as error:
        raise translate(error, doing) from error
