"""Azure's errors as ours, chosen by what the caller does next.

Codes:
https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
and https://learn.microsoft.com/troubleshoot/azure/virtual-machines/linux/allocation-failure
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.providers.azure.credentials import HINT as KEYS_HINT

CAPACITY = {
    *(
        "SkuNotAvailable",
        "AllocationFailed",
        "ZonalAllocationFailed",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
    ),
    *("SpotVMCapacityNotAvailable", "AllocationTimeout", "FabricInternalError"),
}
QUOTA = {
    "QuotaExceeded",
    "SubscriptionQuotaExceeded",
    "PublicIPCountLimitReached",
    "NetworkWatcherCountLimitReached",
    "ResourceQuotaExceeded",
}
CREDENTIALS = {
    "AuthorizationFailed",
    "LinkedAuthorizationFailed",
    "InvalidAuthenticationToken",
    "InvalidAuthenticationTokenTenant",
    "SubscriptionNotFound",
}
HINTS: dict[type[ProviderError], str] = {
    CapacityError: (
        "Try another `cloud-region` or `cloud-type`, list several, or leave `cloud-spot` out."
    ),
    QuotaError: "Ask for more at the portal's page Quotas, or use another `cloud-region`.",
    CredentialsError: (
        "`cml-runner permissions azure`, with the inputs of this launch, prints the role that it"
        " needs."
    ),
    ConfigurationError: "Change the input named in the message.",
    ProviderError: "Try again.",
}
BUSY = (429, 500, 502, 503, 504)
"""Statuses that the SDK has retried before it raises them."""
TERMS = {"MarketplacePurchaseEligibilityFailed", "ResourcePurchaseValidationFailed"}


def codes_of(error: HttpResponseError) -> list[str]:
    """The outer code, then the inner ones, which say more."""
    codes = []
    detail = getattr(error, "error", None)
    while detail is not None:
        codes.append(str(detail.code or ""))
        inner = list(getattr(detail, "details", None) or ())
        detail = inner[0] if inner else None
    return [code for code in codes if code]


def kind_of(codes: Sequence[str], message: str, status: int = 0) -> type[ProviderError]:
    """The class of error for these codes, by what the caller does next."""
    if CAPACITY & set(codes):
        return CapacityError
    # Azure reports a quota of cores, by family or region, as OperationNotAllowed.
    if QUOTA & set(codes) or ("OperationNotAllowed" in codes and "quota" in message.lower()):
        return QuotaError
    if CREDENTIALS & set(codes) or status in (401, 403):
        return CredentialsError
    return ProviderError if status in BUSY else ConfigurationError


def translate(error: AzureError, doing: str) -> ProviderError:
    if isinstance(error, ClientAuthenticationError) and not codes_of(error):
        # From the token service, whose message may quote the request.
        return CredentialsError(
            f"Azure's credentials do not work while {doing}: {type(error).__name__}.", KEYS_HINT
        )
    if not isinstance(error, HttpResponseError):
        return ProviderError(
            f"Azure did not answer while {doing}: {type(error).__name__}.", "Try again."
        )
    codes = codes_of(error)
    message = " ".join(
        str(getattr(getattr(error, "error", None), "message", None) or error.message).split()
    )
    kind = kind_of(codes, message, error.status_code or 0)
    hint = HINTS[kind]
    if "MissingSubscriptionRegistration" in codes:
        named = re.search(r"namespace '([^']+)'", message)
        hint = (
            "Register it once in this subscription: `az provider register --namespace"
            f" {named[1] if named else 'Microsoft.Compute'}`."
        )
    if TERMS & set(codes):
        hint = (
            "Accept the terms of this image once in this subscription: `az vm image terms accept"
            " --urn PUBLISHER:OFFER:SKU:VERSION`."
        )
    if "LinkedAuthorizationFailed" in codes and "userAssignedIdentities" in message:
        hint = (
            "The launcher needs the role Managed Identity Operator on the identity of"
            " `cloud-permission-set`."
        )
    return kind(
        f"Azure refused while {doing}: {', '.join(codes) or error.status_code}: {message}", hint
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises the SDK's exceptions as ours."""
    try:
        yield
    except AzureError as error:
        raise translate(error, doing) from error
