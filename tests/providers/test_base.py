"""What all clouds decide alike."""

from __future__ import annotations

from itertools import permutations

import pytest

from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.providers.base import worst_of

ENDS_THE_LAUNCH = (ProviderError, CredentialsError, ConfigurationError)


@pytest.mark.parametrize("kind", ENDS_THE_LAUNCH)
def test_of_several_refusals_the_one_that_ends_most_is_told(kind: type[ProviderError]) -> None:
    errors = [kind("launch"), QuotaError("region"), CapacityError("pool")]
    for number in range(1, 4):
        for order in permutations(errors, number):
            assert worst_of(order) is min(order, key=errors.index)


@pytest.mark.parametrize("kind", [*ENDS_THE_LAUNCH, QuotaError, CapacityError])
def test_of_one_kind_the_first_is_told(kind: type[ProviderError]) -> None:
    first, second = kind("first"), kind("second")
    assert worst_of([first, second]) is first


def test_without_refusals_there_is_none() -> None:
    assert worst_of([]) is None
