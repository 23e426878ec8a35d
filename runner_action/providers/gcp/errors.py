"""Compute Engine's errors in our words, chosen by what the caller does next.

Codes of operations: https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation
Reasons of answers: https://cloud.google.com/resource-manager/docs/core_errors
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from runner_action.errors import CapacityError, ConfigurationError, CredentialsError, ProviderError, QuotaError

CAPACITY = {"ZONE_RESOURCE_POOL_EXHAUSTED", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "STOCKOUT", "RESOURCE_POOL_EXHAUSTED"}
QUOTA = {"QUOTA_EXCEEDED", "quotaExceeded", "QUOTA_EXCEEDED_RATE", "limitExceeded", "LIMIT_EXCEEDED"}
CREDENTIALS = {"forbidden", "accessNotConfigured", "SERVICE_DISABLED", "authError", "required", "UNAUTHENTICATED", "PERMISSION_DENIED", "PERMISSIONS_ERROR"}
PASSING = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError", "INTERNAL_ERROR", "RATE_LIMIT_EXCEEDED"}
HINTS: dict[type[ProviderError], str] = {
    CapacityError: "Try another `cloud-region` or `cloud-type`, list several, or leave `cloud-spot` out.",
    QuotaError: "Ask for more at the console's page Quotas, or use another `cloud-region`.",
    CredentialsError: "The launcher needs roles/compute.instanceAdmin.v1 in the project; with `cloud-ssh-private` also roles/compute.securityAdmin.",
    ConfigurationError: "Change the input named in the message.",
}
KEYS_HINT = (
    "Set GOOGLE_APPLICATION_CREDENTIALS_DATA to the text of a key; better, without keys: google-github-actions/auth before this step on GitHub, "
    "`id_tokens` on GitLab (gitlab-component/examples/google-cloud.yml)."
)


def kind_of(codes: Sequence[str], status: int = 0) -> type[ProviderError]:
    """What the caller does next at an error with these codes."""
    for known, kind in ((CAPACITY, CapacityError), (QUOTA, QuotaError), (CREDENTIALS, CredentialsError)):
        if known & set(codes):
            return kind
    return CredentialsError if status in (401, 403) else ConfigurationError


def codes_of(error: GoogleAPICallError) -> list[str]:
    """Reasons in the answer's body, and in its details."""
    listed = [str(one.get("reason", "")) for one in error.errors or () if isinstance(one, dict)]
    return [code for code in [*listed, *re.findall(r"'reason': '([A-Z_]+)'", str(error.details or "")), str(error.reason or "")] if code]


def is_passing(error: GoogleAPICallError) -> bool:
    return bool(PASSING & set(codes_of(error))) or (error.code or 0) in (429, 500, 502, 503, 504)


def refused(codes: Sequence[str], message: str, doing: str, status: int = 0) -> ProviderError:
    kind = kind_of(codes, status)
    hint = HINTS[kind]
    if "actAs" in message or "iam.serviceaccounts.actas" in message.lower():
        hint = "The launcher needs iam.serviceAccounts.actAs on the service account of `cloud-permission-set`: role roles/iam.serviceAccountUser."
    if "SERVICE_DISABLED" in codes or "accessNotConfigured" in codes:
        hint = "Enable the Compute Engine API of this project: `gcloud services enable compute.googleapis.com`."
    return kind(f"Google Cloud refused while {doing}: {', '.join(codes) or status}: {message}", hint)


def translate(error: GoogleAPICallError | GoogleAuthError, doing: str) -> ProviderError:
    if isinstance(error, GoogleAuthError):
        # Its texts name files and addresses, never keys; but an answer of the token service may quote what was sent.
        return CredentialsError(f"Google Cloud's credentials do not work while {doing}: {type(error).__name__}.", KEYS_HINT)
    said = re.sub(r"^[A-Z]+ https?://\S+: ", "", str(error.message))  # the SDK puts method and address before Google's words
    return refused(codes_of(error), said, doing, int(error.code or 0))


def of_operation(operation: Any, doing: str) -> ProviderError:
    """The real error of an operation that ended with one."""
    found = list(operation.error.errors)
    codes = [one.code for one in found if one.code]
    message = "; ".join(dict.fromkeys(one.message for one in found)) or operation.http_error_message
    return refused(codes, message, doing, int(operation.http_error_status_code or 0))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """No exception of the SDK leaves this block."""
    try:
        yield
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise translate(error, doing) from error
