"""EC2's errors as ours, chosen by what the caller does next.

Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)

CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "SpotMaxPriceTooLow",
    "Unsupported",  # the zone does not offer the type
    "UnfulfillableCapacity",
    "InstanceTypeNotSupported",
    "NoCapacity",
}
QUOTA = {
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "InstanceLimitExceeded",
    "VolumeLimitExceeded",
    "MaxIOPSLimitExceeded",
    "MaxFleetCountExceeded",
}
CREDENTIALS = {
    "AuthFailure",
    "UnauthorizedOperation",
    "InvalidClientTokenId",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "OptInRequired",
    "PendingVerification",
    "Blocked",
    "UnrecognizedClientException",
    "InvalidIdentityToken",  # this and the next come from STS, about the job's id token
    "IDPRejectedClaim",
}
THROTTLING = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"}
PASSING = {"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"}
ABSENT = {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"}

KEYS_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; better, without keys:"
    " aws-actions/configure-aws-credentials before this step on GitHub, `id_tokens` on GitLab"
    " (gitlab-component/examples/aws.yml)."
)
NO_ROLE_HINT = (
    "With `cloud-permission-set` the launcher needs iam:PassRole on the role of that instance"
    " profile as well; `cml-runner permissions aws`, with the inputs of this launch, prints the"
    " policy."
)
HINTS: dict[type[ProviderError], str] = {
    CapacityError: "Try another `cloud-region` or `cloud-type`, or leave `cloud-spot` out.",
    QuotaError: (
        "Ask for more at the Service Quotas console of the region, or use another `cloud-region`."
    ),
    CredentialsError: (
        "`cml-runner permissions aws`, with the inputs of this launch, prints the policy it needs."
    ),
    ConfigurationError: "Change the input named in the message.",
}


def code_of(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def kind_of(code: str) -> type[ProviderError]:
    """The class of error for a code, by what the caller does next."""
    sets = ((CAPACITY, CapacityError), (QUOTA, QuotaError), (CREDENTIALS, CredentialsError))
    return next((kind for codes, kind in sets if code in codes), ConfigurationError)


def refused(
    code: str, message: str, doing: str, decode: Callable[[str], str] | None = None
) -> ProviderError:
    """EC2's error as one of ours. `decode` reads the encoded reason of a missing permission."""
    kind = kind_of(code)
    # The rest of the message is an encoded blob of a kilobyte.
    text, _, blob = re.sub(
        r"\s*Encoded authorization failure message:\s*", "\0", message
    ).partition("\0")
    if blob and decode:
        text += decode(blob.strip())
    hint = NO_ROLE_HINT if kind is CredentialsError and "iam:PassRole" in text else HINTS[kind]
    return kind(f"AWS refused while {doing}: {code}: {text}", hint)


def denied(decoded: str) -> str:
    """What `sts:DecodeAuthorizationMessage` returned, in one sentence: action and resource."""
    verdict: dict[str, Any] = json.loads(decoded)
    context = verdict.get("context", {})
    why = "a policy denies it" if verdict.get("explicitDeny") else "no policy allows it"
    return f" It needs {context.get('action')} on {context.get('resource')}, and {why}."


OFFLINE = (HTTPClientError, NoConnection)
WITHOUT_KEYS = (NoCredentialsError, PartialCredentialsError)


def _is_of_configuration(error: Exception) -> bool:
    return isinstance(error, BotoCoreError) and not isinstance(error, (*OFFLINE, *WITHOUT_KEYS))


def translate(
    error: ClientError | BotoCoreError, doing: str, decode: Callable[[str], str] | None = None
) -> ProviderError:
    """The SDK's error as one of ours. `doing`: what failed, in the user's words."""
    if isinstance(error, WITHOUT_KEYS):
        return CredentialsError(f"No AWS credentials were found while {doing}.", KEYS_HINT)
    if isinstance(error, BotoCoreError):
        # These messages name endpoints and parameters, never keys.
        return ConfigurationError(
            f"Cannot reach AWS while {doing}: {error}",
            "Check `cloud-region` and the network.",
        )
    return refused(
        code_of(error), error.response.get("Error", {}).get("Message", ""), doing, decode
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises the SDK's exceptions as ours, but for those about its configuration, which
    `guarding.configured` raises with the names of the variables."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if _is_of_configuration(error):
            raise
        raise translate(error, doing) from error
    except OSError as error:  # the file that AWS_WEB_IDENTITY_TOKEN_FILE names
        raise CredentialsError(
            f"Cannot read the AWS credentials while {doing}: {error}.", KEYS_HINT
        ) from error
