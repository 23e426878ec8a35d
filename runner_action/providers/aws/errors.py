"""EC2's errors in our words, chosen by what the caller does next.

Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from runner_action.errors import CapacityError, ConfigurationError, CredentialsError, ProviderError, QuotaError

CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "SpotMaxPriceTooLow",
    "Unsupported",  # the zone does not offer the type
    "UnfulfillableCapacity",
}
QUOTA = {"VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "VolumeLimitExceeded", "MaxIOPSLimitExceeded"}
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
    "InvalidIdentityToken",  # these two of the token service, about the job's id token
    "IDPRejectedClaim",
}
THROTTLING = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"}
PASSING = {"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"}
ABSENT = {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"}

KEYS_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; better, without keys: aws-actions/configure-aws-credentials before this step on GitHub, "
    "`id_tokens` on GitLab (gitlab-component/examples/aws.yml)."
)
HINTS: dict[type[ProviderError], str] = {
    CapacityError: "Try another `cloud-region` or `cloud-type`, or leave `cloud-spot` out.",
    QuotaError: "Ask for more at the Service Quotas console of the region, or use another `cloud-region`.",
    CredentialsError: "The README lists the permissions a launch needs.",
    ConfigurationError: "Change the input named in the message.",
}


def code_of(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def translate(error: ClientError | BotoCoreError, doing: str) -> ProviderError:
    """The error as one of ours; `doing` says in the user's words what was being done."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return CredentialsError(f"No AWS credentials were found while {doing}.", KEYS_HINT)
    if isinstance(error, BotoCoreError):
        # These texts name endpoints and parameters, never keys.
        return ConfigurationError(f"AWS could not be asked while {doing}: {error}", "Check `cloud-region` and the network.")
    code = code_of(error)
    sets = ((CAPACITY, CapacityError), (QUOTA, QuotaError), (CREDENTIALS, CredentialsError))
    kind: type[ProviderError] = next((kind for codes, kind in sets if code in codes), ConfigurationError)
    # What follows is an encoded blob of a kilobyte, for `aws sts decode-authorization-message`.
    text = re.split(r"\s*Encoded authorization failure message", error.response.get("Error", {}).get("Message", ""))[0]
    return kind(f"AWS refused while {doing}: {code}: {text}", HINTS[kind])


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """No exception of the SDK leaves this block."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise translate(error, doing) from error
    except OSError as error:  # the file that AWS_WEB_IDENTITY_TOKEN_FILE names
        raise CredentialsError(f"The AWS credentials could not be read while {doing}: {error}.", KEYS_HINT) from error
