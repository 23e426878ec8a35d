"""Azure's errors in our words, chosen by what the caller does next.

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
"""Status of an answer that the SDK has asked for several times by then."""
TERMS = {"MarketplacePurchaseEligibilityFailed", "ResourcePurchaseValidationFailed"}


def codes_of(error: HttpResponseError) -> list[str]:
    """The outer code, then those inside, which say more."""
    found, told = [], getattr(error, "error", None)
    while told is not None:
        found.append(str(told.code or ""))
        inside = list(getattr(told, "details", None) or ())
        told = inside[0] if inside else None
    return [code for code in found if code]


def kind_of(codes: Sequence[str], message: str, status: int = 0) -> type[ProviderError]:
    """What the caller does next at an error with these codes."""
    if CAPACITY & set(codes):
        return CapacityError
    # Cores of a family or a region are told as OperationNotAllowed.
    if QUOTA & set(codes) or ("OperationNotAllowed" in codes and "quota" in message.lower()):
        return QuotaError
    if CREDENTIALS & set(codes) or status in (401, 403):
        return CredentialsError
    return ProviderError if status in BUSY else ConfigurationError


def translate(error: AzureError, doing: str) -> ProviderError:
    if isinstance(error, ClientAuthenticationError) and not codes_of(error):
        # Of the token service, whose text may quote what was sent.
        return CredentialsError(
            f"Azure's credentials do not work while {doing}: {type(error).__name__}.", KEYS_HINT
        )
    if not isinstance(error, HttpResponseError):
        return ProviderError(
            f"Azure did not answer while {doing}: {type(error).__name__}.", "Try again."
        )
    codes = codes_of(error)
    said = " ".join(
        str(getattr(getattr(error, "error", None), "message", None) or error.message).split()
    )
    kind = kind_of(codes, said, error.status_code or 0)
    hint = HINTS[kind]
    if "MissingSubscriptionRegistration" in codes:
        named = re.search(r"namespace '([^']+)'", said)
        hint = (
            "Register it once in this subscription: `az provider register --namespace"
            f" {named[1] if named else 'Microsoft.Compute'}`."
        )
    if TERMS & set(codes):
        hint = (
            "Accept the terms of this image once in this subscription: `az vm image terms accept"
            " --urn PUBLISHER:OFFER:SKU:VERSION`."
        )
    if "LinkedAuthorizationFailed" in codes and "userAssignedIdentities" in said:
        hint = (
            "The launcher needs the role Managed Identity Operator on the identity of"
            " `cloud-permission-set`."
        )
    return kind(
        f"Azure refused while {doing}: {', '.join(codes) or error.status_code}: {said}", hint
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """No exception of the SDK leaves this block."""
    try:
        yield
    except AzureError as error:
        raise translate(error, doing) from error
