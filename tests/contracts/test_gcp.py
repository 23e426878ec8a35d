"""Google Cloud alone, over HTTP: every request and every answer is judged by Google's own description; what is asked, what is made, what each
refusal leads to, and that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from runner_action.errors import CapacityError, ConfigurationError, CredentialsError, ProviderError, QuotaError
from runner_action.model import Identity, Instance, Machine, Placement
from runner_action.providers.gcp.client import GcpProvider
from runner_action.request import CloudRequest
from runner_action.sandbox.gcp import FakeGcp
from tests.contracts.discovery import compute
from tests.contracts.openapi import Contract
from tests.contracts.test_provider import gcp as provider
from tests.test_launch import request

INSTANCE = "/zones/{zone}/instances/{instance}"
PATHS = (
    *("/global/images/{image}", "/global/images/family/{family}", "/zones", "/aggregated/machineTypes", "/aggregated/instances", "/zones/{zone}/instances"),
    *(INSTANCE, f"{INSTANCE}/serialPort", "/zones/{zone}/operations/{operation}", "/global/firewalls", "/global/firewalls/{firewall}"),
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


def machine(name: str = "cml-1", key: str = "key", user_data: bytes = b"#cloud-config\n{}\n") -> Machine:
    identity = Identity(name=name, key=key)
    ours = {"cml-runner:repository": "https://github.com/octo/train", "cml-runner:run": "octo/train run 1", "cml-runner:expiry": "2026-11-23T01:26:40Z"}
    tags = {"Name": name, "cml-runner": "runner", **identity.marks, **ours, "team": "vision"}
    return Machine(identity=identity, user_data=user_data, tags=tags, lifetime=86400)


@dataclass
class Side:
    gcp: FakeGcp
    provider: GcpProvider

    def request(self, *argv: str) -> CloudRequest:
        where = [] if any(word.startswith("--cloud-region") for word in argv) else ["--cloud-region=us-east"]
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
    assert (now.alive, now.address, now.zone, now.region, now.name) == (True, "203.0.113.7", "us-east1-b", "us-east1", "cml-1")
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
    with pytest.raises(ConfigurationError, match="There is a machine cml-1 in us-east1-b that this launch has not made"):
        side.create(of=machine(key="ours"))
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


def test_a_launch_deletes_what_has_stopped_and_old_rules_without_a_machine(side: Side) -> None:
    key = side.request()
    for name in ("cml-lives", "cml-stopped"):
        side.create(of=machine(name))
    side.gcp.instances["us-east1-b", "cml-stopped"]["status"] = "TERMINATED"
    for name, day in (("cml-gone", "2026-11-20"), ("cml-lives", "2026-11-20"), ("cml-young", "2026-11-23"), ("theirs", "2026-11-20")):
        text = "theirs" if name == "theirs" else "cml-runner: asked for by cloud-ssh-private"
        made = {"kind": "compute#firewall", "id": "1", "creationTimestamp": f"{day}T00:00:00.000+00:00"}
        side.gcp.firewalls[f"{name}-ssh"] = {"name": f"{name}-ssh", "description": text, "targetTags": [name], **made}
    asked = replace(key, ssh_public_key="ssh-rsa AAAA")
    fresh = provider(side.gcp)
    fresh.create(fresh.resolve(fresh.plan(asked), asked)[0], machine("cml-new"))
    assert side.gcp.alive() == ["cml-lives", "cml-new"]
    assert sorted(side.gcp.firewalls) == ["cml-lives-ssh", "cml-new-ssh", "cml-young-ssh", "theirs-ssh"]


def test_a_sweep_that_fails_is_no_failure_of_the_launch(side: Side, caplog: pytest.LogCaptureFixture) -> None:
    side.gcp.denied.add("compute.instances.list")
    assert side.create().alive
    assert "compute.instances.list" in caplog.text


# --- what is asked and made


def test_every_question_is_asked_once(side: Side) -> None:
    side.create()
    calls = [call for call in side.gcp.calls if call != "zoneOperations.get"]
    assert sorted(calls) == [
        "images.getFromFamily",
        "instances.create",
        "instances.get",
        "instances.list",  # what earlier launches left, while the machine is made
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
    assert disk["initializeParams"]["sourceImage"].endswith("ubuntu-os-cloud/global/images/ubuntu-2404-noble-amd64-v20261101")
    assert made["labels"]["cml-runner"] == disk["initializeParams"]["labels"]["cml-runner"] == "runner"
    assert (made["labels"]["team"], made["labels"]["cml-runner-expiry"]) == ("vision", "2026-11-23t01-26-40z")
    assert made["description"] == "cml-runner: octo/train run 1 of https://github.com/octo/train"
    assert {item["key"] for item in made["metadata"]["items"]} == {"user-data", "user-data-encoding", "block-project-ssh-keys"}
    assert "serviceAccounts" not in made
    assert side.gcp.firewalls == {}


@pytest.mark.parametrize(
    ("argv", "machine_type", "accelerator", "image"),
    [
        (["--cloud-type=m+t4"], "n1-standard-4", ("nvidia-tesla-t4", 1), "common-cu129"),
        (["--cloud-gpu=l4"], "g2-standard-4", None, "common-cu129"),
        (["--cloud-type=custom-8-53248+nvidia-tesla-v100*2"], "custom-8-53248", ("nvidia-tesla-v100", 2), "common-cu129"),
        (["--cloud-type=e2-custom-8-32768"], "e2-custom-8-32768", None, "ubuntu-2404-noble-amd64"),
        (["--cloud-type=t2a-standard-4"], "t2a-standard-4", None, "ubuntu-2404-noble-arm64"),
    ],
)
def test_machine_types(argv: list[str], machine_type: str, accelerator: tuple[str, int] | None, image: str, side: Side) -> None:
    side.create(*argv)
    made = side.only
    assert made["machineType"].endswith(f"/machineTypes/{machine_type}")
    found = [(one["acceleratorType"].rpartition("/")[2], one["acceleratorCount"]) for one in made.get("guestAccelerators", ())]
    assert found == ([accelerator] if accelerator else [])
    assert image in made["disks"][0]["initializeParams"]["sourceImage"]
    fixed = accelerator is not None or machine_type.startswith("g2")
    assert made["scheduling"]["onHostMaintenance"] == ("TERMINATE" if fixed else "MIGRATE")


def test_a_spot_machine_is_deleted_when_it_is_taken(side: Side) -> None:
    made = side.create("--cloud-spot")
    assert made.spot
    scheduling = side.only["scheduling"]
    assert (scheduling["provisioningModel"], scheduling["instanceTerminationAction"], scheduling["onHostMaintenance"]) == ("SPOT", "DELETE", "TERMINATE")


def test_identity_and_network(side: Side) -> None:
    account = "my-sa@octo-train.iam.gserviceaccount.com"
    side.create(f"--cloud-permission-set={account},scopes=storage-rw,datastore", "--cloud-gcp-subnetwork=private", "--cloud-gcp-private")
    made = side.only
    scopes = ["https://www.googleapis.com/auth/devstorage.read_write", "https://www.googleapis.com/auth/datastore"]
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
    assert (rule["targetTags"], rule["allowed"]) == (["cml-1"], [{"IPProtocol": "tcp", "ports": ["22"]}])
    assert "cml-1" in side.only["tags"]["items"]
    side.provider.destroy("cml-1", made)
    assert side.gcp.firewalls == {}
    side.gcp.refuse("ZONE_RESOURCE_POOL_EXHAUSTED")
    with pytest.raises(CapacityError):
        side.provider.create(placement, machine("cml-2"))
    assert side.gcp.firewalls == {}


# --- the ladder


def test_regions_zones_types_and_markets_in_the_users_order(side: Side) -> None:
    ladder = side.ladder("--cloud-region=us-west,us-east1-d", "--cloud-type=m,l", "--cloud-spot=prefer")
    assert [str(rung) for rung in ladder[:3]] == ["e2-standard-8 spot in us-west1-a", "e2-standard-32 spot in us-west1-a", "e2-standard-8 spot in us-west1-b"]
    assert [rung.spot for rung in ladder] == [True] * 8 + [False] * 8
    assert {pool.zone for rung in ladder for pool in rung.pools} == {"us-west1-a", "us-west1-b", "us-west1-c", "us-east1-d"}


def test_only_zones_that_have_the_type(side: Side) -> None:
    assert [rung.pools[0].zone for rung in side.ladder("--cloud-gpu=l4")] == ["us-east1-b", "us-east1-d"]
    with pytest.raises(ConfigurationError, match=r"Google Cloud does not offer a3-highgpu-8g in us-east1\."):
        side.ladder("--cloud-type=xl+h100")
    side.gcp.denied.add("compute.machineTypes.list")
    assert len(side.ladder("--cloud-gpu=l4")) == 3


@pytest.mark.parametrize("image", ["ubuntu-os-cloud/ubuntu-2004-lts", "projects/ubuntu-os-cloud/global/images/nothing"])
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
    ("invalid", 400, ConfigurationError, ""),
    ("INVALID_USAGE", 0, ConfigurationError, ""),
]


@pytest.mark.parametrize("leaves", [False, True], ids=["gone", "half made"])
@pytest.mark.parametrize(("code", "status", "kind", "hint"), REFUSALS, ids=[f"{code}{'' if status else ' of the operation'}" for code, status, *_ in REFUSALS])
def test_each_refusal_is_the_class_that_says_what_to_do_next(code: str, status: int, kind: type[ProviderError], hint: str, leaves: bool, side: Side) -> None:
    side.gcp.refuse(code, status, message="Words of Google.", leaves=leaves)
    with pytest.raises(kind, match=rf"creating e2-standard-8 on demand in us-east1-b: {code}: Words of Google\.") as caught:
        side.create()
    assert hint in caught.value.hint
    assert side.gcp.alive() == []


def test_a_missing_right_to_the_service_account_is_told(side: Side) -> None:
    side.gcp.refuse(
        "forbidden", 403, message="The user does not have access to service account 'x'. User: 'y'. Ask a project owner to grant iam.serviceAccounts.actAs"
    )
    with pytest.raises(CredentialsError) as caught:
        side.create()
    assert "roles/iam.serviceAccountUser" in caught.value.hint


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
