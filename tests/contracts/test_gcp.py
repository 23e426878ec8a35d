"""Google Cloud alone, over HTTP: every request and every answer is judged by Google's own
description; what is asked, what is made, what each refusal leads to, and that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from runner_action.commands.reap import reap
from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.model import Identity, Instance, Machine, Placement, Repository
from runner_action.providers.gcp.client import GcpProvider
from runner_action.request import CloudRequest
from runner_action.runners.context import Context
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from tests.contracts.discovery import compute
from tests.contracts.openapi import Contract
from tests.contracts.test_provider import gcp as provider
from tests.fakes import FakeClock, FakeForge
from tests.test_launch import request

INSTANCE = "/zones/{zone}/instances/{instance}"
PATHS = (
    *(
        "/global/images/{image}",
        "/global/images/family/{family}",
        "/zones",
        "/zones/{zone}/instances",
    ),
    *("/aggregated/machineTypes", "/aggregated/acceleratorTypes", "/aggregated/instances"),
    *(
        INSTANCE,
        f"{INSTANCE}/serialPort",
        "/zones/{zone}/operations/{operation}",
        "/global/firewalls",
        "/global/firewalls/{firewall}",
    ),
)


@pytest.fixture(scope="module")
def judged() -> Iterator[tuple[FakeGcp, Contract]]:
    fake = FakeGcp()
    yield fake, Contract(compute(*PATHS), fake.url, undeclared=(403, 404, 409, 503))
    fake.close()


@pytest.fixture
def gcp(judged: tuple[FakeGcp, Contract]) -> Iterator[FakeGcp]:
    fake, judge = judged
    fake.reset()
    judge.seen.clear()
    with judge:
        yield fake
    assert judge.seen


def machine(
    name: str = "cml-1", key: str = "key", user_data: bytes = b"#cloud-config\n{}\n"
) -> Machine:
    identity = Identity(name=name, key=key)
    ours = {
        "cml-runner:repository": "https://github.com/octo/train",
        "cml-runner:run": "octo/train run 1",
        "cml-runner:expiry": "2026-11-23T01:26:40Z",
    }
    tags = {"Name": name, "cml-runner": "runner", **identity.marks, **ours, "team": "vision"}
    return Machine(identity=identity, user_data=user_data, tags=tags, lifetime=86400)


@dataclass
class Side:
    gcp: FakeGcp
    provider: GcpProvider

    def request(self, *argv: str) -> CloudRequest:
        where = (
            []
            if any(word.startswith("--cloud-region") for word in argv)
            else ["--cloud-region=us-east"]
        )
        cloud = request("--cloud=gcp", *where, *argv).cloud
        assert cloud
        return cloud

    def ladder(self, *argv: str) -> list[Placement]:
        cloud = self.request(*argv)
        return list(self.provider.resolve(self.provider.plan(cloud), cloud))

    def create(self, *argv: str, of: Machine | None = None) -> Instance:
        (made,) = self.provider.create(self.ladder(*argv)[0], of or machine()).instances
        return made

    @property
    def only(self) -> dict[str, Any]:
        (made,) = self.gcp.instances.values()
        return made


@pytest.fixture
def side(gcp: FakeGcp) -> Side:
    return Side(gcp, provider(gcp))


# --- the contract of providers


def test_an_instance_is_made_found_looked_at_and_destroyed(side: Side) -> None:
    made = side.create()
    assert [one.id for one in side.provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert side.provider.find({"cml-runner:name": "cml-2"}) == []
    now = side.provider.look(made)
    assert (now.alive, now.address, now.zone, now.region, now.name) == (
        True,
        "203.0.113.7",
        "us-east1-b",
        "us-east1",
        "cml-1",
    )
    assert side.provider.console(made) == "Booting"
    assert side.provider.destroy("cml-1", made) is True
    assert side.provider.look(made).alive is False
    assert side.provider.find({}) == []
    assert side.provider.destroy("cml-1") is False


def test_creating_again_gives_the_same_instance(side: Side) -> None:
    assert side.create().id == side.create().id
    side.create(of=machine("cml-2"))
    assert len(side.provider.find({})) == 2


def test_a_machine_of_that_name_that_is_somebody_elses_stays(side: Side) -> None:
    side.create(of=machine(key="theirs"))
    with pytest.raises(
        ConfigurationError,
        match="There is a machine cml-1 in us-east1-b that this launch did not create",
    ):
        side.create(of=machine(key="ours"))
    assert side.gcp.alive() == ["cml-1"]


def test_a_launch_that_is_tried_again_after_its_machine_is_gone_gets_another(side: Side) -> None:
    made = side.create()
    side.provider.destroy("cml-1", made)
    assert side.create().id != made.id
    assert side.gcp.alive() == ["cml-1"]


def test_a_lost_answer_makes_no_second_machine(side: Side) -> None:
    side.gcp.served.fail("POST", "/instances", 503, late=True)
    side.create()
    assert side.gcp.alive() == ["cml-1"]


def test_several_side_by_side(side: Side) -> None:
    created = side.provider.create(side.ladder()[0], machine(), 5)
    assert len({one.id for one in created.instances}) == 5
    assert {one.name for one in created.instances} == {"cml-1"}
    again = side.provider.create(side.ladder()[0], machine(), 5)
    assert {one.id for one in again.instances} == {one.id for one in created.instances}


def test_some_of_several(side: Side) -> None:
    side.gcp.refuse("ZONE_RESOURCE_POOL_EXHAUSTED", times=2)
    created = side.provider.create(side.ladder()[0], machine(), 5)
    assert len(created.instances) == 3
    assert isinstance(created.shortage, CapacityError)
    assert len(side.gcp.alive()) == 3


# --- what earlier launches left


def test_a_sweep_removes_what_has_stopped_and_old_rules_without_a_machine(side: Side) -> None:
    for name in ("cml-lives", "cml-stopped", "cml-other"):
        made = machine(name)
        other = (
            {"cml-runner:repository": "https://github.com/octo/other"}
            if name == "cml-other"
            else {}
        )
        side.create(of=replace(made, tags={**made.tags, **other}))
    for name in ("cml-stopped", "cml-other"):
        side.gcp.instances["us-east1-b", name]["status"] = "TERMINATED"
    for name, day in (
        ("cml-gone", "2026-11-20"),
        ("cml-lives", "2026-11-20"),
        ("cml-young", "2026-11-23"),
        ("theirs", "2026-11-20"),
    ):
        text = "theirs" if name == "theirs" else "cml-runner: asked for by cloud-ssh-private"
        rule = {
            "kind": "compute#firewall",
            "id": "1",
            "creationTimestamp": f"{day}T00:00:00.000+00:00",
        }
        side.gcp.firewalls[f"{name}-ssh"] = {
            "name": f"{name}-ssh",
            "description": text,
            "targetTags": [name],
            **rule,
        }
    reap(
        Context(
            Repository(url="https://github.com/octo/train"),
            FakeForge(),
            provider(side.gcp),
            FakeClock(),
        ),
    )
    assert side.gcp.alive() == ["cml-lives", "cml-other"]
    assert sorted(side.gcp.firewalls) == ["cml-lives-ssh", "cml-young-ssh", "theirs-ssh"]


def test_a_sweep_that_may_not_look_at_rules_goes_on(side: Side) -> None:
    side.create(of=machine("cml-stopped"))
    side.gcp.instances["us-east1-b", "cml-stopped"]["status"] = "TERMINATED"
    side.gcp.denied.add("compute.firewalls.list")
    reap(
        Context(
            Repository(url="https://github.com/octo/train"),
            FakeForge(),
            provider(side.gcp),
            FakeClock(),
        ),
    )
    assert side.gcp.alive() == []


# --- what is asked and made


def test_every_question_is_asked_once(side: Side) -> None:
    side.create()
    calls = [call for call in side.gcp.calls if call != "zoneOperations.get"]
    assert sorted(calls) == [
        "images.getFromFamily",
        "instances.create",
        "instances.get",
        "machineTypes.list",
        "zones.list",
    ]


def test_what_a_machine_is_made_of(side: Side) -> None:
    side.create("--cloud-hdd-size=9")
    made = side.only
    assert made["scheduling"] == {
        "provisioningModel": "STANDARD",
        "instanceTerminationAction": "DELETE",
        "onHostMaintenance": "MIGRATE",
        "automaticRestart": False,
        "maxRunDuration": {"seconds": "86400"},
    }
    disk = made["disks"][0]
    assert disk["autoDelete"] is True
    assert disk["initializeParams"]["diskSizeGb"] == "10"  # the image's own size
    assert disk["initializeParams"]["sourceImage"].endswith(
        "ubuntu-os-cloud/global/images/ubuntu-2404-noble-amd64-v20261101"
    )
    assert (
        made["labels"]["cml-runner"] == disk["initializeParams"]["labels"]["cml-runner"] == "runner"
    )
    assert (made["labels"]["team"], made["labels"]["cml-runner-expiry"]) == (
        "vision",
        "2026-11-23t01-26-40z",
    )
    assert made["description"] == "cml-runner: octo/train run 1 of https://github.com/octo/train"
    assert {item["key"] for item in made["metadata"]["items"]} == {
        "user-data",
        "user-data-encoding",
        "block-project-ssh-keys",
        "cml-runner-launch",
        "disable-https-mds-setup",
    }
    assert made["shieldedInstanceConfig"] == {
        "enableSecureBoot": True,
        "enableVtpm": True,
        "enableIntegrityMonitoring": True,
    }
    assert "serviceAccounts" not in made
    assert side.gcp.firewalls == {}


@pytest.mark.parametrize(
    ("argv", "shielded"),
    [
        (
            ["--cloud-type=m+t4"],
            {"enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True},
        ),  # NVIDIA's modules are not signed
        (
            ["--cloud-image=octo-train/ours"],
            {"enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True},
        ),
        (["--cloud-image=octo-train/bios"], None),
        (["--cloud-type=t2a-standard-4"], None),
    ],
)
def test_a_machine_is_as_shielded_as_image_and_type_allow(
    argv: list[str], shielded: dict[str, bool] | None, side: Side
) -> None:
    side.create(*argv)
    assert side.only.get("shieldedInstanceConfig") == shielded


def test_a_disk_is_encrypted_by_ones_own_key(side: Side) -> None:
    key = "projects/octo-train/locations/us-east1/keyRings/ours/cryptoKeys/disks"
    side.create(f"--cloud-gcp-kms-key={key}")
    assert side.only["disks"][0]["diskEncryptionKey"] == {"kmsKeyName": key}


@pytest.mark.parametrize(
    ("argv", "machine_type", "accelerator", "image"),
    [
        (["--cloud-type=m+t4"], "n1-standard-4", ("nvidia-tesla-t4", 1), "common-cu129"),
        (["--cloud-gpu=l4"], "g2-standard-4", None, "common-cu129"),
        (
            ["--cloud-type=custom-8-53248+nvidia-tesla-v100*2"],
            "custom-8-53248",
            ("nvidia-tesla-v100", 2),
            "common-cu129",
        ),
        (["--cloud-type=e2-custom-8-32768"], "e2-custom-8-32768", None, "ubuntu-2404-noble-amd64"),
        (["--cloud-type=t2a-standard-4"], "t2a-standard-4", None, "ubuntu-2404-noble-arm64"),
    ],
)
def test_machine_types(
    argv: list[str], machine_type: str, accelerator: tuple[str, int] | None, image: str, side: Side
) -> None:
    side.create(*argv)
    made = side.only
    assert made["machineType"].endswith(f"/machineTypes/{machine_type}")
    found = [
        (one["acceleratorType"].rpartition("/")[2], one["acceleratorCount"])
        for one in made.get("guestAccelerators", ())
    ]
    assert found == ([accelerator] if accelerator else [])
    assert image in made["disks"][0]["initializeParams"]["sourceImage"]
    fixed = accelerator is not None or machine_type.startswith("g2")
    assert made["scheduling"]["onHostMaintenance"] == ("TERMINATE" if fixed else "MIGRATE")


def test_a_spot_machine_is_deleted_when_it_is_taken(side: Side) -> None:
    made = side.create("--cloud-spot")
    assert made.spot
    scheduling = side.only["scheduling"]
    assert (
        scheduling["provisioningModel"],
        scheduling["instanceTerminationAction"],
        scheduling["onHostMaintenance"],
    ) == ("SPOT", "DELETE", "TERMINATE")


def test_identity_and_network(side: Side) -> None:
    account = "my-sa@octo-train.iam.gserviceaccount.com"
    side.create(
        f"--cloud-permission-set={account},scopes=storage-rw,datastore",
        "--cloud-gcp-subnetwork=private",
        "--cloud-gcp-private",
    )
    made = side.only
    scopes = [
        "https://www.googleapis.com/auth/devstorage.read_write",
        "https://www.googleapis.com/auth/datastore",
    ]
    assert made["serviceAccounts"] == [{"email": account, "scopes": scopes}]
    interface = made["networkInterfaces"][0]
    assert interface["subnetwork"] == "regions/us-east1/subnetworks/private"
    assert "accessConfigs" not in interface
    assert side.provider.find({})[0].address == "10.0.0.2"


def test_with_a_key_there_is_one_rule_for_this_machine_and_it_goes_with_it(side: Side) -> None:
    from dataclasses import replace

    cloud = replace(side.request(), ssh_public_key="ssh-rsa AAAA")
    placement = next(iter(side.provider.resolve(side.provider.plan(cloud), cloud)))
    (made,) = side.provider.create(placement, machine()).instances
    (rule,) = side.gcp.firewalls.values()
    assert (rule["targetTags"], rule["allowed"]) == (
        ["cml-1"],
        [{"IPProtocol": "tcp", "ports": ["22"]}],
    )
    assert "cml-1" in side.only["tags"]["items"]
    side.provider.destroy("cml-1", made)
    assert side.gcp.firewalls == {}
    side.gcp.refuse("ZONE_RESOURCE_POOL_EXHAUSTED")
    with pytest.raises(CapacityError):
        side.provider.create(placement, machine("cml-2"))
    assert side.gcp.firewalls == {}


def test_a_rule_that_may_not_be_deleted_is_told_and_the_machine_goes(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    cloud = replace(side.request(), ssh_public_key="ssh-rsa AAAA")
    ladder = side.provider.resolve(side.provider.plan(cloud), cloud)
    for missing, said in (
        ("compute.firewalls.delete", "cml-1-ssh could not be deleted"),
        ("compute.instances.get", "Could not check whether"),
    ):
        (made,) = side.provider.create(ladder[0], machine()).instances
        side.gcp.denied.add(missing)
        side.provider.destroy("cml-1", made)
        side.gcp.denied.clear()
        assert (side.gcp.alive(), list(side.gcp.firewalls)) == ([], ["cml-1-ssh"])
        assert said in caplog.text
        side.gcp.firewalls.clear()


def test_a_question_about_the_rule_that_is_never_answered_keeps_no_machine(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = side.provider.create(
        side.provider.resolve(side.provider.plan(side.request()), side.request())[0], machine()
    ).instances
    side.gcp.served.fail("GET", f"/instances/{made.id}$", 503, times=1000)
    side.provider.destroy("cml-1", made)
    assert side.gcp.alive() == []
    assert "Could not check whether" in caplog.text


def test_a_machine_without_a_key_has_no_rule_that_would_be_asked_for(side: Side) -> None:
    side.provider.create(
        side.provider.resolve(side.provider.plan(side.request()), side.request())[0], machine()
    )
    side.gcp.denied.add("compute.firewalls.delete")
    side.provider.destroy("cml-1")
    assert side.gcp.alive() == []
    assert "compute.firewalls.delete" not in side.gcp.asked


def test_a_network_of_another_project_takes_no_rule_of_ours(side: Side) -> None:
    cloud = replace(
        side.request("--cloud-gcp-network=projects/host/global/networks/net"),
        ssh_public_key="ssh-rsa AAAA",
    )
    side.provider.create(side.provider.resolve(side.provider.plan(cloud), cloud)[0], machine())
    assert side.only["networkInterfaces"][0]["network"] == "projects/host/global/networks/net"
    assert side.gcp.firewalls == {}


# --- the ladder


def test_regions_zones_types_and_markets_in_the_users_order(side: Side) -> None:
    ladder = side.ladder(
        "--cloud-region=us-west,us-east1-d", "--cloud-type=m,l", "--cloud-spot=prefer"
    )
    assert [str(rung) for rung in ladder[:3]] == [
        "e2-standard-8 spot in us-west1-a",
        "e2-standard-8 spot in us-west1-b",
        "e2-standard-8 spot in us-west1-c",
    ]
    assert str(ladder[3]) == "e2-standard-32 spot in us-west1-a"
    assert [rung.spot for rung in ladder] == [True] * 8 + [False] * 8
    assert {pool.zone for rung in ladder for pool in rung.pools} == {
        "us-west1-a",
        "us-west1-b",
        "us-west1-c",
        "us-east1-d",
    }


def test_only_zones_that_have_the_type(side: Side) -> None:
    assert [rung.pools[0].zone for rung in side.ladder("--cloud-gpu=l4")] == [
        "us-east1-b",
        "us-east1-d",
    ]
    assert [rung.pools[0].zone for rung in side.ladder("--cloud-gpu=t4")] == [
        "us-east1-c",
        "us-east1-d",
    ], "not b, which has the type but no T4"
    assert [rung.pools[0].zone for rung in side.ladder("--cloud-type=n4-custom-4-16384")] == [
        "us-east1-c"
    ], "as others of its family"
    with pytest.raises(
        ConfigurationError, match=r"Google Cloud does not offer a3-highgpu-8g in us-east1\."
    ):
        side.ladder("--cloud-type=xl+h100")


@pytest.mark.parametrize(
    ("missing", "word"),
    [("compute.machineTypes.list", "l4"), ("compute.acceleratorTypes.list", "t4")],
)
def test_who_may_not_ask_which_zone_has_what_tries_all_of_them(
    missing: str, word: str, side: Side
) -> None:
    side.gcp.denied.add(missing)
    ladder = {rung.pools[0].zone: rung for rung in side.ladder(f"--cloud-gpu={word}")}
    assert sorted(ladder) == ["us-east1-b", "us-east1-c", "us-east1-d"]
    with pytest.raises(CapacityError, match=r"does not exist in zone|was not found"):
        side.provider.create(ladder["us-east1-c" if word == "l4" else "us-east1-b"], machine())
    assert side.provider.create(ladder["us-east1-d"], machine()).instances
    assert side.gcp.alive() == ["cml-1"]


def test_what_is_sold_as_spot_only_is_not_tried_on_demand(side: Side) -> None:
    ladder = side.ladder(
        "--cloud-type=a3-highgpu-1g,e2-standard-8",
        "--cloud-spot=prefer",
        "--cloud-region=us-east1-b",
    )
    assert [str(rung) for rung in ladder] == [
        *(
            "a3-highgpu-1g spot in us-east1-b",
            "e2-standard-8 spot in us-east1-b",
            "e2-standard-8 on demand in us-east1-b",
        ),
    ]


@pytest.mark.parametrize(
    "image", ["debian-cloud/debian-99", "projects/ubuntu-os-cloud/global/images/nothing"]
)
def test_a_missing_image_is_an_error_and_no_other_system(image: str, side: Side) -> None:
    with pytest.raises(ConfigurationError, match=f"There is no image {image}"):
        side.ladder(f"--cloud-image={image}")


def test_an_image_of_the_other_architecture_is_refused(side: Side) -> None:
    with pytest.raises(ConfigurationError, match="is for ARM64, the type e2-standard-8 is X86_64"):
        side.ladder("--cloud-image=ubuntu-os-cloud/ubuntu-2404-lts-arm64")


# --- refusals


REFUSALS: list[tuple[str, int, type[ProviderError], str]] = [
    ("ZONE_RESOURCE_POOL_EXHAUSTED", 0, CapacityError, ""),
    ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", 0, CapacityError, ""),
    ("QUOTA_EXCEEDED", 0, QuotaError, ""),
    ("quotaExceeded", 403, QuotaError, ""),
    ("forbidden", 403, CredentialsError, "roles/compute.instanceAdmin.v1"),
    ("accessNotConfigured", 403, CredentialsError, "gcloud services enable"),
    ("SERVICE_ACCOUNT_ACCESS_DENIED", 0, CredentialsError, "roles/iam.serviceAccountUser"),
    ("IP_SPACE_EXHAUSTED_WITH_DETAILS", 0, CapacityError, ""),
    ("conditionNotMet", 412, ConfigurationError, ""),
    ("invalid", 400, ConfigurationError, ""),
    ("INVALID_USAGE", 0, ConfigurationError, ""),
]


@pytest.mark.parametrize("leaves", [False, True], ids=["gone", "half made"])
@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    REFUSALS,
    ids=[f"{code}{'' if status else ' of the operation'}" for code, status, *_ in REFUSALS],
)
def test_each_refusal_is_the_class_that_says_what_to_do_next(
    code: str, status: int, kind: type[ProviderError], hint: str, leaves: bool, side: Side
) -> None:
    side.gcp.refuse(code, status, message="Words of Google.", leaves=leaves)
    with pytest.raises(
        kind, match=rf"creating e2-standard-8 on demand in us-east1-b: {code}: Words of Google\."
    ) as caught:
        side.create()
    assert hint in caught.value.hint
    assert side.gcp.alive() == []


def test_a_missing_right_to_the_service_account_is_told(side: Side) -> None:
    side.gcp.refuse(
        "forbidden",
        403,
        message=(
            "The user does not have access to service account 'x'. User: 'y'. Ask a project owner"
            " to grant iam.serviceAccounts.actAs"
        ),
    )
    with pytest.raises(CredentialsError) as caught:
        side.create()
    assert "roles/iam.serviceAccountUser" in caught.value.hint


def test_the_details_of_an_operations_error_are_told(side: Side) -> None:
    text = "A e2-standard-8 VM instance is currently unavailable in the us-east1-b zone."
    metadata = {"vmType": "e2-standard-8", "zone": "us-east1-b", "zonesAvailable": "us-east1-d"}
    details = [
        {
            "help": {
                "links": [
                    {
                        "description": "Troubleshooting documentation",
                        "url": "https://cloud.google.com/compute/docs/resource-error",
                    }
                ]
            }
        },
        {"localizedMessage": {"locale": "en-US", "message": text}},
        {
            "errorInfo": {
                "domain": "compute.googleapis.com",
                "reason": "resource_availability",
                "metadatas": metadata,
            }
        },
    ]
    side.gcp.refuse(
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        message="The zone does not have enough resources available.",
        details=details,
    )
    with pytest.raises(
        CapacityError,
        match=rf"enough resources available\.; {text}; other zones have it: us-east1-d",
    ):
        side.create()


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (
            "Constraint constraints/compute.vmExternalIpAccess violated for project 314159265358.",
            "cloud-gcp-private",
        ),
        (
            (
                "Invalid value for field 'resource.networkInterfaces[0].network': 'x'. The"
                " referenced network resource cannot be found."
            ),
            "cloud-gcp-network",
        ),
    ],
)
def test_rules_of_an_organisation_are_told_with_what_to_write(
    message: str, hint: str, side: Side
) -> None:
    side.gcp.refuse("invalid", 400, message=message)
    with pytest.raises(ConfigurationError) as caught:
        side.create()
    assert hint in caught.value.hint


def test_an_api_that_is_not_enabled_is_told_in_googles_own_form(side: Side) -> None:
    message = "Compute Engine API has not been used in project 1 before or it is disabled."
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
    }
    links = {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [
            {"description": "API activation", "url": "https://console.developers.google.com"}
        ],
    }
    told = {
        "code": 403,
        "message": message,
        "errors": [{"message": message, "domain": "usageLimits", "reason": "accessNotConfigured"}],
    }
    body = {"error": {**told, "status": "PERMISSION_DENIED", "details": [links, info]}}
    side.gcp.served.fail("GET", "/zones$", 403, body=body)
    with pytest.raises(CredentialsError, match="it is disabled") as caught:
        side.ladder()
    assert "gcloud services enable compute.googleapis.com" in caught.value.hint


def test_a_machine_that_is_still_being_made_is_waited_for_until_it_can_be_deleted(
    side: Side,
) -> None:
    reason = {
        "message": "The resource is not ready",
        "domain": "global",
        "reason": "resourceNotReady",
    }
    body = {"error": {"code": 400, "message": reason["message"], "errors": [reason]}}
    made = side.create()
    side.gcp.served.fail("DELETE", "/instances/", 400, times=3, body=body)
    assert side.provider.destroy("cml-1", made) is True
    assert side.gcp.alive() == []
    side.gcp.served.fail("DELETE", "/instances/", 400, times=3, body=body)
    side.gcp.refuse("QUOTA_EXCEEDED", leaves=True)
    with pytest.raises(QuotaError):
        side.create()
    assert side.gcp.alive() == []


@pytest.mark.parametrize(
    "path",
    [
        "/zones$",
        "/images/",
        "/machineTypes$",
        "/acceleratorTypes$",
        "/aggregated/instances$",
        "/serialPort$",
    ],
)
def test_a_question_that_is_not_answered_now_is_asked_again(path: str, side: Side) -> None:
    side.gcp.served.fail("GET", path, 503, times=2)
    made = side.create("--cloud-gpu=t4")
    assert [one.id for one in side.provider.find({})] == [made.id]
    assert side.provider.console(made) == "Booting"
    assert not [fault for fault in side.gcp.served.faults if fault.times], "all of them were met"


def test_a_deletion_that_is_not_answered_now_is_asked_for_again(side: Side) -> None:
    made = side.create()
    side.gcp.served.fail("DELETE", "/instances/", 503, times=2)
    assert side.provider.destroy("cml-1", made) is True
    assert side.gcp.alive() == []


def test_a_project_that_is_not_there_is_told(side: Side) -> None:
    other = Side(side.gcp, provider(side.gcp, "other-project"))
    with pytest.raises(ConfigurationError, match="projects/other-project"):
        other.ladder()


@pytest.mark.parametrize("path", ["/instances$", "/operations/"])
def test_passing_faults_are_waited_out(path: str, side: Side) -> None:
    side.gcp.served.fail("POST" if path == "/instances$" else "GET", path, 503, times=3)
    side.create()
    assert side.gcp.alive() == ["cml-1"]


def test_an_operation_that_takes_long_is_followed(side: Side) -> None:
    side.gcp.steps = 20
    assert side.create().alive
    assert side.gcp.asked.count("compute.zoneOperations.get") == 20
