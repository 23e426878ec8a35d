"""What Azure takes and its types do not say: names, tags, custom data. What ours sends is held to
it in every test of `test_azure.py`."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from runner_action.marks import tags
from runner_action.model import Identity, Machine, Repository
from tests.contracts.azure_types import beyond
from tests.contracts.test_azure import Side, azure, served, side
from tests.contracts.test_provider import EXPIRY, ONLINE_BY

__all__ = ["azure", "served", "side"]
PATH = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/"


def profile(size: int) -> dict[str, Any]:
    return {"osProfile": {"customData": base64.b64encode(b"x" * size).decode()}}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("n" * 65, {}),
        ("-n", {}),
        ("n", {"tags": {f"t{number}": "" for number in range(51)}}),
        ("n", {"tags": {"t" * 513: ""}}),
        ("n", {"tags": {"a/b": ""}}),
        ("n", {"tags": {"t": "v" * 257}}),
        ("n", {"properties": profile(65536)}),
    ],
)
def test_azure_takes_no_such_thing(name: str, body: dict[str, Any]) -> None:
    assert list(beyond(PATH + name, {"properties": {}, **body}))
    assert not list(
        beyond(PATH + "n" * 64, {"properties": profile(65535), "tags": {"t" * 512: "v" * 256}})
    )


def test_the_largest_machine_is_taken(side: Side) -> None:
    """By name, user data, tags and address of its repository."""
    repository = Repository(url="https://gitlab.example.com/" + "x" * 400)
    identity, metadata = (
        Identity(name="n" * 50, key="key"),
        {f"t{number}": "v" * 256 for number in range(43)},
    )
    told = tags(identity, repository, repository.url, ONLINE_BY, EXPIRY, metadata)
    side.create(
        of=Machine(identity=identity, user_data=b"x" * side.provider.user_data_limit, tags=told)
    )
    assert side.azure.alive()
