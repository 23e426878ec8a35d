"""The user's words at Google Cloud: tables and refusals. No network; what is made of them is
judged in tests/contracts/test_gcp.py."""

from __future__ import annotations

import base64
import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
from google.api_core.exceptions import Forbidden, RetryError
from google.auth.exceptions import RefreshError, TransportError
from requests.exceptions import ConnectTimeout

from runner_action import bootstrap
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.errors import CredentialsError, InputError, ProviderError
from runner_action.model import Deletion, Download, Identity, Machine, Place, Registration, Secret
from runner_action.providers.gcp import errors, ladder, plan, requests, sdk, table
from runner_action.request import CloudRequest
from runner_action.sandbox.clouds.gcp.catalogue import ZONES
from tests import goldens
from tests.fakes import unpacked
from tests.test_launch import request

KEY = Secret(
    json.dumps(
        {
            "client_email": "a@b.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": "canary-private-key",
        }
    )
)


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
    assert plan.plan(cloud_of(f"--cloud-region={word}")).places == (
        Place(region=region, zone=zone),
    )


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
        (
            ["--cloud-type=custom-8-53248+nvidia-tesla-t4*2"],
            "custom-8-53248+nvidia-tesla-t4*2",
            "x64",
        ),
        (["--cloud-type=n1-standard-4+nvidia-tesla-t4"], "n1-standard-4+nvidia-tesla-t4*1", "x64"),
        (["--cloud-type=c4a-standard-4"], "c4a-standard-4", "arm64"),
        # CML's documents and https://github.com/iterative/cml/issues/1048, 1398
        (
            ["--cloud-type=n1-standard-4", "--cloud-gpu=nvidia-tesla-t4"],
            "n1-standard-4+nvidia-tesla-t4*1",
            "x64",
        ),
        (
            ["--cloud-type=n1-highmem-2", "--cloud-gpu=t4:2"],
            "n1-highmem-2+nvidia-tesla-t4*2",
            "x64",
        ),
        (["--cloud-type=n1-highmem-2+t4"], "n1-highmem-2+nvidia-tesla-t4*1", "x64"),
        (
            ["--cloud-type=custom-8-53248+nvidia-tesla-k80*1"],
            "custom-8-53248+nvidia-tesla-t4*1",
            "x64",
        ),
        (
            ["--cloud-type=n1-standard-8", "--cloud-gpu=nvidia-tesla-p100"],
            "n1-standard-8+nvidia-tesla-p100*1",
            "x64",
        ),
        (["--cloud-gpu=NVIDIA-Tesla-T4"], "n1-standard-4+nvidia-tesla-t4*1", "x64"),
        (["--cloud-type=m+nvidia-l4*2"], "g2-standard-24", "x64"),
        (["--cloud-type=g2-standard-4", "--cloud-gpu=nvidia-l4"], "g2-standard-4", "x64"),
        (["--cloud-type=a2-highgpu-1g+nvidia-tesla-a100*1"], "a2-highgpu-1g", "x64"),
    ],
)
def test_types(argv: list[str], native: str, architecture: str) -> None:
    found = plan.plan(cloud_of(*argv))
    assert (found.instance_types, found.architecture) == ((native,), architecture)
    assert (found.image == table.WITH_DRIVER) == requests.has_gpu(native)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--cloud-gpu=l4:3"],
            r"m\+l4:3 does not exist on Google Cloud; Google Cloud has l4 by 1, 2, 4, 8",
        ),
        (
            ["--cloud-type=m+nvidia-tesla-t4*x"],
            r"cloud-type m\+t4:x does not exist on Google Cloud",
        ),
        (
            ["--cloud-type=e2-standard-4", "--cloud-gpu=t4"],
            "e2-standard-4 cannot have a GPU: Google Cloud adds GPUs to N1 types only",
        ),
        (["--cloud-type=f1-micro+t4"], "f1-micro cannot have a GPU"),
        (["--cloud-type=n1-standard-4+l4"], "n1-standard-4 cannot have l4; it can have t4,"),
        (["--cloud-type=n1-standard-4+t4:3"], "cannot have t4:3; write 1 to 4 of them"),
        (
            ["--cloud-type=g2-standard-4", "--cloud-gpu=t4"],
            r"g2-standard-4 has a GPU of its own \(l4\), so leave cloud-gpu t4 out",
        ),
        (["--cloud-image=ubuntu-os-cloud/ubuntu-2004-lts"], "is no longer supported; leave it out"),
        (["--cloud-region=europe"], "cloud-region europe is not a region or zone of Google Cloud"),
        (
            ["--cloud-type=e2-standard-2,t2a-standard-4"],
            r"two architectures \(t2a-standard-4 arm64",
        ),
        (
            ["--cloud-type=m+h100"],
            "a3-highgpu-1g is available on Google Cloud as spot only; add cloud-spot",
        ),
        (
            ["--cloud-spot", "--cloud-spot-price=0.1"],
            "Google Cloud's spot machines have no bidding price",
        ),
        (
            ["--cloud-image=ubuntu"],
            (
                "cloud-image ubuntu is not a Google Cloud image; write project/family, as in"
                " ubuntu-os-cloud/ubuntu-2404-lts-amd64"
            ),
        ),
        (["--cloud-metadata=Team=x"], "cloud-metadata Team=… is not a Google Cloud label"),
        (
            ["--cloud-metadata=team=Vision Lab"],
            "cloud-metadata team=Vision Lab is not a Google Cloud label",
        ),
        (["--cloud-permission-set=someone"], "is not a service account; write my-sa@my-project"),
        (
            ["--cloud-permission-set=a@b.iam.gserviceaccount.com,scopes=storage"],
            "storage is not a scope; write an address or one of bigquery",
        ),
    ],
)
def test_what_google_cannot_do_is_refused_with_what_it_can(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan(cloud_of(*argv))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan.plan(
            cloud_of(
                "--cloud-region=europe",
                "--cloud-metadata=Team=X Y",
                "--cloud-permission-set=someone",
            )
        )
    assert len(caught.value.problems) == 4


def test_every_scope_of_cml_has_its_address() -> None:
    given = ",".join(table.SCOPES)
    account, problems = requests.account_of(f"a@b.iam.gserviceaccount.com,scopes={given}")
    assert problems == []
    assert account is not None
    assert len(set(account["scopes"])) == len(table.SCOPES) == 24
    assert requests.account_of("a@b.iam.gserviceaccount.com") == (
        {"email": "a@b.iam.gserviceaccount.com", "scopes": []},
        [],
    )


def test_our_tags_fit_googles_rules() -> None:
    labels = requests.labels_of(
        {
            "Name": "cml-1",
            "cml-runner": "runner",
            "cml-runner:expiry": "2026-11-23T01:26:40Z",
            "cml-runner:run": "Ünïcode",
            "team": "x",
        }
    )
    assert labels == {
        "cml-runner": "runner",
        "cml-runner-expiry": "2026-11-23t01-26-40z",
        "team": "x",
    }
    assert all(
        requests.LABEL_KEY.fullmatch(key) and requests.LABEL_VALUE.fullmatch(value)
        for key, value in labels.items()
    )


@pytest.mark.parametrize(
    ("kind", "spot", "maintenance", "disk"),
    [
        ("e2-standard-8", False, "MIGRATE", "pd-balanced"),
        ("e2-standard-8", True, "TERMINATE", "pd-balanced"),
        ("n1-standard-4+nvidia-tesla-t4*1", False, "TERMINATE", "pd-balanced"),
        ("a2-highgpu-1g", False, "TERMINATE", "pd-balanced"),
        ("g2-standard-4", False, "TERMINATE", "pd-balanced"),
        ("a3-ultragpu-8g", False, "TERMINATE", "hyperdisk-balanced"),
        ("c4a-standard-4", False, "MIGRATE", "hyperdisk-balanced"),
        ("m4-megamem-28", False, "MIGRATE", "hyperdisk-balanced"),
        ("h4d-standard-192", False, "TERMINATE", "hyperdisk-balanced"),
        ("c3-standard-192-metal", False, "TERMINATE", "hyperdisk-balanced"),
    ],
)
def test_what_cannot_be_moved_and_which_disk_it_takes(
    kind: str, spot: bool, maintenance: str, disk: str
) -> None:
    assert requests.scheduling(kind, spot, 600)["on_host_maintenance"] == maintenance
    assert requests.disk_type(kind.partition("+")[0]) == disk


def test_the_port_is_opened_in_the_network_of_the_machine() -> None:
    asked = dataclasses.replace(
        cloud_of("--cloud-gcp-subnetwork=ours"), ssh_public_key="ssh-rsa AAAA"
    )
    with pytest.raises(
        InputError, match="cloud-ssh-private with cloud-gcp-subnetwork needs cloud-gcp-network too"
    ):
        plan.plan(asked)
    named = dataclasses.replace(
        cloud_of("--cloud-gcp-subnetwork=ours", "--cloud-gcp-network=net"),
        ssh_public_key="ssh-rsa AAAA",
    )
    assert plan.plan(named).places
    assert requests.opens_port(named, "octo-train")
    shared = dataclasses.replace(
        cloud_of("--cloud-gcp-network=projects/host/global/networks/net"),
        ssh_public_key="ssh-rsa AAAA",
    )
    assert (requests.opens_port(shared, "octo-train"), requests.opens_port(shared, "host")) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("e2-standard-8", ["e2-standard-8"]),
        ("n1-standard-4+nvidia-tesla-t4*2", ["n1-standard-4", "nvidia-tesla-t4"]),
        ("custom-8-53248+nvidia-tesla-t4*1", ["n1-standard-4", "nvidia-tesla-t4"]),
        ("n2d-custom-8-32768-ext", ["n2d-standard-4"]),
    ],
)
def test_what_a_zone_has_to_list(kind: str, names: list[str]) -> None:
    assert ladder.names_of(kind) == names


# --- errors, where no server says them


def late(cause: Exception) -> RetryError:
    """As the SDK gives up."""
    return RetryError("late", cause)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            late(ConnectTimeout("canary")),
            ProviderError,
            "did not answer while looking: ConnectTimeout",
        ),
        (TransportError("canary"), ProviderError, "did not answer while looking: TransportError"),  # type: ignore[no-untyped-call]
        (
            RefreshError("canary"),  # type: ignore[no-untyped-call]
            CredentialsError,
            "credentials do not work while looking: RefreshError",
        ),
        (
            late(Forbidden("no", errors=[{"reason": "rateLimitExceeded"}])),  # type: ignore[no-untyped-call]
            ProviderError,
            "rateLimitExceeded",
        ),
    ],
)
def test_no_answer_is_no_missing_permission(
    error: Exception, kind: type[ProviderError], words: str
) -> None:
    found = errors.translate(error, "looking")
    assert type(found) is kind
    assert words in str(found)
    assert "canary" not in f"{found}{found.hint}"
    assert ("Try again" in found.hint) is (kind is ProviderError)


# --- golden plans, requests and user data


NASTY = 'he said "it\'s $HOME"; `x` \\ ünïcode 🚂'
SCRIPT = base64.b64encode(f"#!/bin/bash\necho '{NASTY}'\n\n# end\n".encode()).decode()
ACCOUNT = "--cloud-permission-set=train@octo-train.iam.gserviceaccount.com"
REQUESTS: dict[str, list[str]] = {
    "default": [],
    "small": ["--cloud-type=s"],
    "large in a zone": ["--cloud-type=l", "--cloud-region=us-east1-b"],
    "two regions": ["--cloud-region=eu-west,us-east"],
    "two zones": ["--cloud-region=us-east1-c,us-east1-b"],
    "several types": ["--cloud-type=g2-standard-4,n1-standard-4+nvidia-tesla-t4*1"],
    "spot": ["--cloud-spot"],
    "spot, then on demand": ["--cloud-spot=prefer", "--cloud-region=us-west1-a"],
    "gpu beside": ["--cloud-type=m+t4"],
    "gpu built in": ["--cloud-gpu=l4:4"],
    "old gpu": ["--cloud-gpu=tesla", "--cloud-type=m"],
    "gone gpu": ["--cloud-type=m+k80"],
    "gpu on spot only": ["--cloud-gpu=h100:2", "--cloud-spot=prefer"],
    "type to measure": ["--cloud-type=custom-8-53248+nvidia-tesla-t4*2"],
    "arm64": ["--cloud-type=c4a-standard-4"],
    "hyperdisk": ["--cloud-type=n4-standard-8"],
    "image": ["--cloud-image=octo-train/ours"],
    "account": [f"{ACCOUNT},scopes=storage-rw,datastore"],
    "account without scopes": [ACCOUNT],
    "account that deletes": [f"{ACCOUNT},scopes=compute-rw"],
    "disk": [
        "--cloud-hdd-size=500",
        "--cloud-gcp-kms-key=projects/octo-train/locations/us-west1/keyRings/ours/cryptoKeys/disks",
    ],
    "labels": ["--cloud-metadata=team=vision", "--cloud-metadata=empty="],
    "network": ["--cloud-gcp-network=builders"],
    "shared network": [
        "--cloud-gcp-subnetwork=projects/host/regions/us-west1/subnetworks/s",
        "--cloud-gcp-private",
    ],
    "startup script": [f"--cloud-startup-script={SCRIPT}"],
    "short life": ["--max-lifetime=2h", "--start-timeout=5m"],
    "many": ["--count=20", "--single", "--labels=a b,ü"],
    "all that may be": [
        "--count=2",
        "--cloud-spot=prefer",
        "--no-retry",
        "--cloud-hdd-size=8",
        f"--cloud-startup-script={SCRIPT}",
        "--cloud-metadata=a=b",
    ],
}


def told(argv: list[str]) -> dict[str, Any]:
    """All that Google and the machine get to know of a request. What the SDK does not know, it
    refuses."""
    asked = request("--cloud=gcp", *argv)
    assert asked.cloud
    planned = plan.plan(asked.cloud)
    name = "cml-1" if asked.count == 1 else f"cml-1-{bootstrap.INSTANCE}"
    download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
    spec: AgentSpec = bootstrap.spec_of(
        asked,
        name,
        Registration(token=Secret("canary-registration")),
        download,
        "https://api.github.com",
        None,
    )
    deletion = Deletion(
        {"api": "https://compute.googleapis.com", "rule": False},
        None if requests.may_delete(asked.cloud.permission_set) else KEY,
    )
    data = fitting.user_data(spec, asked, plan.USER_DATA_LIMIT, deletion)
    lifetime = (asked.max_lifetime or 0) + asked.start_timeout
    machine = Machine(
        identity=Identity(name="cml-1", key="k"),
        user_data=b"the user data",
        tags={"Name": "cml-1", **asked.cloud.metadata},
        lifetime=lifetime,
    )
    features = [SimpleNamespace(type_="UEFI_COMPATIBLE")]
    link = "https://www.googleapis.com/compute/v1/projects/ubuntu-os-cloud/global/images/noble"
    image = SimpleNamespace(
        name="noble", architecture="", disk_size_gb="10", self_link=link, guest_os_features=features
    )
    found = ladder.Facts(project="octo-train", image=image, zones=ZONES, offered={})
    made = [
        requests.instance(placement, machine, "cml-1")
        for placement in ladder.placements(planned, asked.cloud, found)
    ]
    for body in made:
        sdk.types.Instance(body)
    files = {path: text for path, text in unpacked(data).items() if "/agent/" not in path}
    return {
        "asked": argv,
        "plan": dataclasses.asdict(planned),
        "made": made,
        "files": {path: text for path, text in files.items() if "systemd" not in path},
    }


def test_golden_plans_requests_and_user_data() -> None:
    """Word for word, and fit for Google's own client."""
    assert len(REQUESTS) >= 25
    goldens.check(goldens.ROOT / "gcp", {name: told(argv) for name, argv in REQUESTS.items()})


@pytest.mark.parametrize(
    ("argv", "deletes"), [([], True), ([f"{ACCOUNT},scopes=storage-rw"], False)]
)
def test_the_units_delete_the_machine_where_it_can(argv: list[str], deletes: bool) -> None:
    asked = request("--cloud=gcp", *argv)
    download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
    spec = bootstrap.spec_of(
        asked,
        "cml-1",
        Registration(token=Secret("canary-registration")),
        download,
        "https://api.github.com",
        None,
    )
    deletion = (
        Deletion({"api": "https://compute.googleapis.com", "rule": True}, KEY) if deletes else None
    )
    files = unpacked(fitting.user_data(spec, asked, plan.USER_DATA_LIMIT, deletion))
    units = {path.rpartition("/")[2]: text for path, text in files.items() if "systemd" in path}
    assert ("cml-runner-delete.service" in units) is deletes
    assert ("Wants=cml-runner-delete.service" in units["cml-runner.service"]) is deletes
    assert (
        ("var/lib/cml-runner/deletion.json" in files)
        is ("var/lib/cml-runner/agent/ending.py" in files)
        is (deletion is not None)
    )
    holding = [path for path, text in files.items() if "canary-private-key" in text]
    assert holding == (["var/lib/cml-runner/deletion.json"] if deletion else [])
