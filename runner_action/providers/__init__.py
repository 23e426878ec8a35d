"""The list of clouds. An SDK is loaded only when its cloud is asked for."""

from __future__ import annotations

from runner_action.errors import InputError
from runner_action.model import ProviderName
from runner_action.providers.base import Provider
from runner_action.waiting import Clock


def provider_for(name: ProviderName, clock: Clock) -> Provider:
    """The provider of that name, with the credentials its SDK finds. Raises InputError for a cloud that has none yet."""
    if name is ProviderName.AWS:
        from runner_action.providers.aws.client import AwsProvider

        return AwsProvider.from_environment(clock)
    raise InputError([f"cloud {name}: this version launches on aws only; {name} is not there yet"])
