"""The user's words at Google Cloud: tables and refusals. No network; what is made of them is judged in tests/contracts/test_gcp.py."""

from __future__ import annotations

import pytest

from runner_action.errors import InputError
from runner_action.model import Place
from runner_action.providers.gcp import plan, requests, table
from runner_action.request import CloudRequest
from tests.test_launch import request


def cloud_of(*argv: str) -> CloudRequest:
    cloud = request("--cloud=gcp", *argv).cloud
    assert cloud
    return cloud


@pytest.mark.parametrize(
    ("word", "region", "zone"),
    [
        ("us-west", "us-west1", None),
        ("us-east", "us-east1", None),
        ("eu-north", "europe-north1", None),
        ("eu-west", "europe-west1", None),
        ("europe-west4", "europe-west4", None),
        ("us-central1-a", "us-central1", "us-central1-a"),
        ("northamerica-northeast1-b", "northamerica-northeast1", "northamerica-northeast1-b"),
    ],
)
def test_regions_and_zones(word: str, region: str, zone: str | None) -> None:
    assert plan.plan(cloud_of(f"--cloud-region={word}")).places == (Place(region=region, zone=zone),)


@pytest.mark.parametrize(
    ("argv", "native", "architecture"),
    [
        ([], "e2-standard-8", "x64"),
        (["--cloud-type=xl"], "n2-standard-64", "x64"),
        (["--cloud-type=m+t4"], "n1-standard-4+nvidia-tesla-t4*1", "x64"),
        (["--cloud-type=l", "--cloud-gpu=t4"], "n1-standard-16+nvidia-tesla-t4*4", "x64"),
        (["--cloud-gpu=l4:2"], "g2-standard-24", "x64"),
        (["--cloud-gpu=a100:16"], "a2-megagpu-16g", "x64"),
        (["--cloud-type=xl+h100"], "a3-highgpu-8g", "x64"),
        (["--cloud-type=m+tesla"], "n1-standard-8+nvidia-tesla-v100*1", "x64"),
        (["--cloud-type=m+k80"], "n1-standard-4+nvidia-tesla-t4*1", "x64"),
        (["--cloud-type=m+a10g"], "g2-standard-4", "x64"),
        (["--cloud-type=custom-8-53248+nvidia-tesla-t4*2"], "custom-8-53248+nvidia-tesla-t4*2", "x64"),
        (["--cloud-type=n1-standard-4+nvidia-tesla-t4"], "n1-standard-4+nvidia-tesla-t4*1", "x64"),
        (["--cloud-type=c4a-standard-4"], "c4a-standard-4", "arm64"),
    ],
)
def test_types(argv: list[str], native: str, architecture: str) -> None:
    found = plan.plan(cloud_of(*argv))
    assert (found.instance_types, found.architecture) == ((native,), architecture)
    assert (found.image == table.WITH_DRIVER) == requests.has_gpu(native)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cloud-gpu=l4:3"], r"m\+l4:3 does not exist on Google Cloud; Google Cloud has l4 by 1, 2, 4, 8"),
        (["--cloud-type=m+nvidia-tesla-t4*x"], "write a type and its accelerators as in n1-standard-4"),
        (["--cloud-region=europe"], "cloud-region europe is not a region or zone of Google Cloud"),
        (["--cloud-type=e2-standard-2,t2a-standard-4"], "two architectures; t2a-standard-4 are arm64"),
        (["--cloud-spot", "--cloud-spot-price=0.1"], "Google Cloud's spot machines have no bidding price"),
        (["--cloud-metadata=Team=x"], "cloud-metadata Team=… is no label of Google Cloud"),
        (["--cloud-metadata=team=Vision Lab"], "cloud-metadata team=Vision Lab is no label of Google Cloud"),
        (["--cloud-permission-set=someone"], "is no service account; write my-sa@my-project"),
        (["--cloud-permission-set=a@b.iam.gserviceaccount.com,scopes=storage"], "storage is no scope; write an address or one of bigquery"),
    ],
)
def test_what_google_cannot_do_is_refused_with_what_it_can(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan(cloud_of(*argv))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan.plan(cloud_of("--cloud-region=europe", "--cloud-metadata=Team=X Y", "--cloud-permission-set=someone"))
    assert len(caught.value.problems) == 4


def test_every_scope_of_cml_has_its_address() -> None:
    given = ",".join(table.SCOPES)
    account, problems = requests.account_of(f"a@b.iam.gserviceaccount.com,scopes={given}")
    assert problems == []
    assert account is not None
    assert len(set(account["scopes"])) == len(table.SCOPES) == 24
    assert requests.account_of("a@b.iam.gserviceaccount.com") == ({"email": "a@b.iam.gserviceaccount.com", "scopes": []}, [])


def test_our_tags_fit_googles_rules() -> None:
    labels = requests.labels_of(
        {"Name": "cml-1", "cml-runner": "runner", "cml-runner:expiry": "2026-11-23T01:26:40Z", "cml-runner:run": "Ünïcode", "team": "x"}
    )
    assert labels == {"cml-runner": "runner", "cml-runner-expiry": "2026-11-23t01-26-40z", "team": "x"}
    assert all(requests.LABEL_KEY.fullmatch(key) and requests.LABEL_VALUE.fullmatch(value) for key, value in labels.items())
