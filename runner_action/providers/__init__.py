"""The list of clouds. An SDK is loaded only when its cloud is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner_action.model import ProviderName
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest, LaunchRequest
from runner_action.waiting import Clock


def refusals(request: LaunchRequest) -> Iterator[str]:
    """Why no provider of ours can serve this request; told before any library is loaded."""
    if request.cloud and request.cloud.provider is not ProviderName.AWS:
        yield f"cloud {request.cloud.provider}: this version launches on aws only; {request.cloud.provider} is not there yet"


def policy_for(request: CloudRequest) -> dict[str, Any]:
    """What the request's cloud has to allow, as a document in its own words."""
    from runner_action.providers.aws.policy import policy

    assert request.provider is ProviderName.AWS
    return policy(request)


def provider_for(name: ProviderName, clock: Clock) -> Provider:
    """The provider of that name, with the credentials its SDK finds."""
    from runner_action.providers.aws.client import AwsProvider

    assert name is ProviderName.AWS
    return AwsProvider.from_environment(clock)
