"""What Compute Engine takes and what not, by size, syntax and sense: the embedded one refuses it,
and nothing that ours sends."""

from __future__ import annotations

import base64
import copy
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from runner_action.sandbox.clouds.gcp.catalogue import PROJECT, error
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from tests.contracts.test_gcp import Side, machine
from tests.contracts.test_provider import gcp as provider

Json = dict[str, Any]
INSTANCE: Json = {
    "name": "cml-1",
    "machineType": "zones/us-east1-b/machineTypes/e2-standard-2",
    "disks": [
        {
            "boot": True,
            "initializeParams": {
                "sourceImage": (
                    "projects/ubuntu-os-cloud/global/images/ubuntu-2404-noble-amd64-v20261101"
                )
            },
        }
    ],
    "networkInterfaces": [{"network": "global/networks/default"}],
    "metadata": {"items": []},
    "scheduling": {},
}


@pytest.fixture
def gcp() -> Iterator[FakeGcp]:
    made = FakeGcp()
    yield made
    made.close()


@pytest.fixture
def side(gcp: FakeGcp) -> Side:
    return Side(gcp, provider(gcp))


def insert(gcp: FakeGcp, body: Json, request_id: str = "") -> tuple[int, str]:
    """Status and message."""
    url = f"{gcp.url}/compute/v1/projects/{PROJECT}/zones/us-east1-b/instances" + (
        f"?requestId={request_id}" if request_id else ""
    )
    asked = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())["error"]["message"]


def having(**fields: Any) -> Json:
    return {**copy.deepcopy(INSTANCE), **fields}


def item(key: str, value: str) -> Json:
    return {"key": key, "value": value}


SPOT = {
    "provisioningModel": "SPOT",
    "onHostMaintenance": "TERMINATE",
    "automaticRestart": False,
    "instanceTerminationAction": "DELETE",
}
DISK = INSTANCE["disks"][0]["initializeParams"]
WRONG: dict[str, tuple[Json, str]] = {
    "a name of 64": (having(name="n" * 64), "resource.name"),
    "a name with capitals": (having(name="Cml"), "resource.name"),
    "a tag that is no name": (having(tags={"items": ["a_b"]}), "resource.tags"),
    "65 tags": (having(tags={"items": [f"t{number}" for number in range(65)]}), "too many tags"),
    "65 labels": (having(labels={f"k{number}": "" for number in range(65)}), "at most 64"),
    "a label with a colon": (having(labels={"cml:x": ""}), "violates the format"),
    "a value of 64": (having(labels={"k": "v" * 64}), "violates the format"),
    "metadata of 256 KiB and a byte": (
        having(metadata={"items": [item("user-data", "x" * 262145)]}),
        "too large",
    ),
    "metadata of 512 KiB": (
        having(metadata={"items": [item(f"k{number}", "x" * 174763) for number in range(3)]}),
        "less than 512 KB",
    ),
    "a key twice": (having(metadata={"items": [item("k", "1"), item("k", "2")]}), "duplicate"),
    "spot that moves": (having(scheduling={**SPOT, "onHostMaintenance": "MIGRATE"}), "SPOT"),
    "spot that is started again": (having(scheduling={**SPOT, "automaticRestart": True}), "SPOT"),
    "a GPU that moves": (
        having(machineType="zones/us-east1-b/machineTypes/g2-standard-4"),
        "live migration",
    ),
    "an E2 that does not move": (having(scheduling={"onHostMaintenance": "TERMINATE"}), "MIGRATE"),
    "121 days": (
        having(scheduling={"maxRunDuration": {"seconds": str(121 * 86400)}}),
        "maxRunDuration",
    ),
    "an action without an end": (
        having(scheduling={"instanceTerminationAction": "DELETE"}),
        "instanceTerminationAction",
    ),
    "a disk below its image": (
        having(disks=[{"initializeParams": {**DISK, "diskSizeGb": "9"}}]),
        "smaller than the image size",
    ),
    "an image of the other architecture": (
        having(machineType="zones/us-east1-b/machineTypes/t2a-standard-4"),
        "architecture X86_64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_google_refuses(name: str, gcp: FakeGcp) -> None:
    body, words = WRONG[name]
    status, message = insert(gcp, body)
    assert (status, words in message) == (400, True), message
    assert gcp.alive() == []


def test_google_takes_all_up_to_its_limits(gcp: FakeGcp) -> None:
    items = [item("user-data", "x" * 262144), item("other", "x" * 262000)]
    labels = {f"k{number}".ljust(63, "x"): "v" * 63 for number in range(64)}
    assert insert(
        gcp,
        having(name="n" * 63, labels=labels, metadata={"items": items}, scheduling=SPOT),
        str(uuid.uuid4()),
    ) == (200, "")
    assert insert(gcp, having(name="other"), "1")[0] == 400, "a request's id is a UUID"


# --- what the launcher makes of it


def test_user_data_up_to_the_limit_is_taken(side: Side) -> None:
    given = b"x" * side.provider.user_data_limit
    side.create(of=machine(user_data=given))
    found = next(one for one in side.only["metadata"]["items"] if one["key"] == "user-data")
    assert base64.b64decode(found["value"]) == given


def test_pages_are_read_to_their_end(side: Side) -> None:
    """Google gives 500 at once, the embedded one as few as it is told."""
    side.gcp.page = 1
    names = [f"cml-{number}" for number in range(3)]
    for name in names:
        side.create(of=machine(name))
        rule = {
            "kind": "compute#firewall",
            "id": "1",
            "creationTimestamp": "2020-11-20T00:00:00.000+00:00",
            "targetTags": ["gone"],
        }
        side.gcp.firewalls[f"{name}-ssh"] = {
            "name": f"{name}-ssh",
            "description": "cml-runner: asked for by cloud-ssh-private",
            **rule,
        }
    assert sorted(one.name for one in side.provider.find({})) == names
    assert {rung.pools[0].zone for rung in side.ladder()} == {
        "us-east1-b",
        "us-east1-c",
        "us-east1-d",
    }
    side.provider.tidy(datetime.now(UTC))
    assert side.gcp.firewalls == {}


def test_a_filter_of_another_form_is_refused(gcp: FakeGcp) -> None:
    for where in ("aggregated/instances", "aggregated/machineTypes", "global/firewalls"):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(
                f"{gcp.url}/compute/v1/projects/{PROJECT}/{where}?filter=name:cml*"
            )


THROTTLED = {429: "rateLimitExceeded", 403: "rateLimitExceeded", 503: "backendError"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/zones$"),
        ("GET", "family"),
        ("POST", "/instances$"),
        ("GET", "operations"),
        ("GET", "/instances/cml-1$"),
    ],
)
@pytest.mark.parametrize("status", THROTTLED)
def test_a_call_that_is_throttled_is_made_again(
    status: int, method: str, path: str, side: Side
) -> None:
    """Google says it with 403 as well as with 429. https://cloud.google.com/compute/api-quota"""
    body, _ = error(
        status,
        THROTTLED[status],
        "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.",
    )
    side.gcp.served.fail(method, path, status, times=2, body=body)
    side.create()
    assert side.gcp.alive() == ["cml-1"]
    assert all(fault.times == 0 for fault in side.gcp.served.faults)
