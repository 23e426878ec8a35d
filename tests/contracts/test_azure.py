"""Azure alone, over TLS: every request and every answer is judged by Azure's own types; what is
asked, what is made, what each refusal leads to, and that nothing is left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trustme
from azure.core.credentials import AccessToken

from runner_action.commands.reap import reap
from runner_action.errors import (
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ProviderError,
    QuotaError,
)
from runner_action.model import Identity, Instance, Machine, Placement, Repository, Secret
from runner_action.providers.azure.arm import Account, Arm
from runner_action.providers.azure.client import AzureProvider
from runner_action.request import CloudRequest
from runner_action.runners.context import Context
from runner_action.sandbox.clouds.azure.arm import FakeAzure
from runner_action.sandbox.clouds.azure.entra import LAUNCHER, SCOPE, SUBSCRIPTION
from runner_action.sandbox.clouds.azure.rbac import CONTRIBUTOR, NOT_OF_CONTRIBUTOR, Rights, Route
from tests.contracts.azure_types import Judge
from tests.fakes import FakeClock, FakeForge
from tests.test_launch import request

OURS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ours/providers"
IDENTITY = f"{OURS}/Microsoft.ManagedIdentity/userAssignedIdentities/machine"
ENCRYPTION = f"{OURS}/Microsoft.Compute/diskEncryptionSets/disks"
SUBNET = f"{OURS}/Microsoft.Network/virtualNetworks/net/subnets/builders"


class Known:
    """Credentials that nobody has to be asked for."""

    def get_token(self, *_scopes: str, **_more: Any) -> AccessToken:
        return AccessToken("canary-access", 4_000_000_000)


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[FakeAzure, Judge, str]]:
    folder, authority = tmp_path_factory.mktemp("azure"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "certificate.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    fake = FakeAzure((str(folder / "certificate.pem"), str(folder / "key.pem")))
    judge = Judge(fake)
    yield fake, judge, str(folder / "ca.pem")
    fake.close()
    # One of several workers may have had only tests in which everything is refused.
    assert judge.seen or not judge.machines


@pytest.fixture
def azure(
    served: tuple[FakeAzure, Judge, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeAzure]:
    fake, judge, authority = served
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
    fake.spoilt.clear()
    for held in (
        fake.groups,
        fake.things,
        fake.refusals,
        fake.rights.denied,
        fake.rights.assignments,
        fake.asked,
        fake.calls,
        fake.served.faults,
    ):
        held.clear()
    fake.entra.given["canary-access"] = LAUNCHER
    fake.rights.grant(LAUNCHER, *CONTRIBUTOR, but=NOT_OF_CONTRIBUTOR, scope=SCOPE)
    fake.steps = 1
    yield fake
    assert judge.problems == []


def provider(fake: FakeAzure, secret: Secret | None = None) -> AzureProvider:
    clock = FakeClock()
    return AzureProvider(
        Arm(lambda: Account(Known(), SUBSCRIPTION, secret), clock, fake.url), clock
    )


def machine(
    name: str = "cml-1", key: str = "key", user_data: bytes = b"#cloud-config\n{}\n"
) -> Machine:
    identity = Identity(name=name, key=key)
    ours = {
        "cml-runner:repository": "https://github.com/octo/train",
        "cml-runner:run": "octo/train run 1",
        "cml-runner:expiry": "2026-11-25T01:26:40Z",
    }
    tags = {"Name": name, "cml-runner": "runner", **identity.marks, **ours, "team": "vision"}
    return Machine(identity=identity, user_data=user_data, tags=tags, lifetime=86400)


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


@dataclass
class Side:
    azure: FakeAzure
    provider: AzureProvider

    def request(self, *argv: str) -> CloudRequest:
        cloud = request("--cloud=azure", *argv).cloud
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
        (made,) = [one for path, one in self.azure.things.items() if "/virtualmachines/" in path]
        return made


@pytest.fixture
def side(azure: FakeAzure) -> Side:
    return Side(azure, provider(azure))


# --- the contract of providers


def test_an_instance_is_made_found_looked_at_and_destroyed(side: Side) -> None:
    made = side.create()
    assert [one.id for one in side.provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert side.provider.find({"cml-runner:name": "cml-2"}) == []
    now = side.provider.look(made)
    assert (now.alive, now.address, now.zone, now.region, now.name, now.login) == (
        True,
        "203.0.113.7",
        "westus2",
        "westus2",
        "cml-1",
        "ubuntu",
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


def test_a_launch_that_is_tried_again_while_its_group_is_being_deleted_has_another(
    side: Side,
) -> None:
    side.azure.served.fail(
        "PUT",
        "resourceGroups/[^/]+$",
        409,
        body=error("ResourceGroupBeingDeleted", "It is in deprovisioning state."),
    )
    first = side.create()
    second = side.create()
    assert first.group != second.group, "the second has the name that was not free for the first"
    side.azure.served.fail(
        "PUT",
        "resourceGroups/[^/]+$",
        409,
        times=9,
        body=error("ResourceGroupBeingDeleted", "It is in deprovisioning state."),
    )
    with pytest.raises(ConfigurationError, match="ResourceGroupBeingDeleted"):
        side.create(of=machine("cml-2"))


def test_several_each_in_a_group_of_its_own(side: Side) -> None:
    created = side.provider.create(side.ladder()[0], machine(), 5)
    assert (
        len({one.id for one in created.instances})
        == len({one.group for one in created.instances})
        == 5
    )
    assert {one.name for one in created.instances} == {"cml-1"}
    assert side.provider.destroy("cml-1", created.instances[0])
    assert len(side.azure.groups) == 4


def test_some_of_several(side: Side) -> None:
    side.azure.refuse("AllocationFailed", times=2)
    created = side.provider.create(side.ladder()[0], machine(), 5)
    assert len(created.instances) == 3
    assert isinstance(created.shortage, CapacityError)
    assert len(side.azure.alive()) == 3


# --- what earlier launches left


def test_a_sweep_removes_groups_whose_time_is_over(side: Side) -> None:
    """A stopped one is shown in tests/sandbox/test_azure.py, where machines stop."""
    past, other = (
        {"cml-runner:expiry": "2026-11-22T00:00:00Z"},
        {"cml-runner:repository": "https://github.com/octo/other"},
    )
    for name, told in (("cml-old", past), ("cml-other", past | other), ("cml-young", {})):
        made = machine(name)
        side.create(of=replace(made, tags={**made.tags, **told}))
    side.azure.groups["theirs"] = {
        "id": "/subscriptions/x/resourceGroups/theirs",
        "name": "theirs",
        "location": "westus2",
        "tags": {},
        "properties": {},
    }
    reap(
        Context(
            Repository(url="https://github.com/octo/train"),
            FakeForge(),
            provider(side.azure),
            FakeClock(),
        ),
    )
    assert [name.rpartition("-")[0] or name for name in side.azure.alive()] == [
        "cml-other",
        "cml-young",
        "theirs",
    ]


# --- what is asked and made


def test_every_question_is_asked_once(side: Side) -> None:
    side.azure.steps = 0
    side.create()
    versions = "locations/publishers/artifacttypes/offers/skus/versions/read"
    polled = ("resourceGroups/read", "virtualMachines/read", "locations/operations/read")
    assert sorted(call for call in side.azure.calls if call not in polled) == [
        *(
            versions,
            versions,
            "networkSecurityGroups/write",
            "resourceGroups/write",
            "skus/read",
            "virtualMachines/write",
            "virtualNetworks/write",
        ),
    ]
    assert side.azure.calls.count("resourceGroups/read") == 1, "whose the group is"
    assert side.azure.calls.count("virtualMachines/read") <= 2
    assert side.azure.calls.count("locations/operations/read") == 1


def test_what_a_machine_is_made_of(side: Side) -> None:
    side.create(
        "--cloud-hdd-size=9",
        "--cloud-spot",
        "--cloud-spot-price=0.25",
        f"--cloud-permission-set={IDENTITY}",
        "--cloud-region=westeurope-2",
    )
    made = side.only
    properties = made["properties"]
    assert made["zones"] == ["2"]
    assert made["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    assert (properties["priority"], properties["evictionPolicy"], properties["billingProfile"]) == (
        "Spot",
        "Delete",
        {"maxPrice": 0.25},
    )
    assert properties["storageProfile"]["osDisk"]["diskSizeGB"] == 30, "the image's own size"
    assert properties["storageProfile"]["osDisk"]["deleteOption"] == "Delete"
    assert properties["storageProfile"]["imageReference"]["version"] == "24.04.202611010", (
        "the newest"
    )
    assert properties["securityProfile"] == {
        "securityType": "TrustedLaunch",
        "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
    }
    (card,) = properties["networkProfile"]["networkInterfaceConfigurations"]
    assert card["properties"]["deleteOption"] == "Delete"
    address = card["properties"]["ipConfigurations"][0]["properties"][
        "publicIPAddressConfiguration"
    ]
    assert (address["sku"]["name"], address["properties"]["deleteOption"]) == ("Standard", "Delete")
    assert made["tags"]["team"] == "vision"
    (security,) = [
        one for path, one in side.azure.things.items() if "networksecuritygroups" in path
    ]
    assert [one["properties"]["access"] for one in security["properties"]["securityRules"]] == [
        "Deny"
    ]


def test_a_gpu_brings_the_image_with_its_driver_and_no_secure_boot(side: Side) -> None:
    side.create("--cloud-type=m+t4", "--cloud-region=westeurope")
    properties = side.only["properties"]
    assert properties["storageProfile"]["imageReference"]["offer"] == "ubuntu-hpc"
    assert properties["securityProfile"]["uefiSettings"]["secureBootEnabled"] is False
    assert properties["storageProfile"]["osDisk"]["diskSizeGB"] == 96, (
        "64 of the image, which are nearly full"
    )


def test_a_disk_is_encrypted_by_ones_own_key(side: Side) -> None:
    side.create(f"--cloud-azure-disk-encryption-set={ENCRYPTION}")
    assert side.only["properties"]["storageProfile"]["osDisk"]["managedDisk"] == {
        "storageAccountType": "StandardSSD_LRS",
        "diskEncryptionSet": {"id": ENCRYPTION},
    }


def test_an_image_of_the_marketplace_brings_its_plan(side: Side) -> None:
    side.create(
        "--cloud-image=center-for-internet-security-inc:cis-ubuntu:cis-ubuntulinux2404-l1-gen2:latest"
    )
    assert side.only["plan"] == {
        "publisher": "center-for-internet-security-inc",
        "name": "cis-ubuntulinux2404-l1-gen2",
        "product": "cis-ubuntu",
    }
    side.provider.destroy("cml-1")
    side.create()
    assert "plan" not in side.only


def test_ones_own_subnet_without_an_address(side: Side) -> None:
    made = side.create(f"--cloud-azure-subnet={SUBNET}", "--cloud-azure-private")
    (card,) = side.only["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    inside = card["properties"]["ipConfigurations"][0]["properties"]
    assert inside["subnet"] == {"id": SUBNET}
    assert "publicIPAddressConfiguration" not in inside
    assert not any("virtualnetworks" in path for path in side.azure.things)
    assert side.provider.look(made).address == "10.0.0.4"


def test_a_key_opens_ssh(side: Side) -> None:
    asked = replace(side.request(), ssh_public_key="ssh-ed25519 AAAA")
    side.provider.create(side.provider.resolve(side.provider.plan(asked), asked)[0], machine())
    (security,) = [
        one for path, one in side.azure.things.items() if "networksecuritygroups" in path
    ]
    assert sorted(
        one["properties"]["destinationPortRange"] for one in security["properties"]["securityRules"]
    ) == ["*", "22"]
    assert (
        side.only["properties"]["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"][0][
            "keyData"
        ]
        == "ssh-ed25519 AAAA"
    )


@pytest.mark.parametrize(
    ("argv", "rungs"),
    [
        (
            ["--cloud-region=eu-west"],
            ["westeurope", "westeurope-1", "westeurope-2", "westeurope-3"],
        ),
        (["--cloud-region=westeurope-3"], ["westeurope-3"]),
        (["--cloud-type=xl", "--cloud-region=us-east"], ["eastus", "eastus-1", "eastus-3"]),
        (
            ["--cloud-type=Standard_NC4as_T4_v3", "--cloud-region=us-west,eu-west"],
            ["westeurope", "westeurope-1"],
        ),
    ],
)
def test_zones_are_rungs_and_what_is_not_offered_is_left_out(
    argv: list[str], rungs: list[str], side: Side
) -> None:
    assert [one.pools[0].zone or one.region for one in side.ladder(*argv)] == rungs


@pytest.mark.parametrize(
    "argv",
    [
        ["--cloud-type=Standard_D2s_v4"],
        ["--cloud-type=Standard_NC4as_T4_v3", "--cloud-region=us-west"],
    ],
)
def test_a_size_that_this_subscription_does_not_get(argv: list[str], side: Side) -> None:
    with pytest.raises(ConfigurationError, match="Azure does not offer"):
        side.ladder(*argv)


def test_credentials_that_may_not_list_sizes_try_the_region(side: Side) -> None:
    side.azure.rights.denied.add("Microsoft.Compute/skus/read")
    assert [one.pools[0].zone for one in side.ladder()] == [""]


@pytest.mark.parametrize(
    "image",
    ["Canonical:ubuntu-24_04-lts:nothing:latest", "Canonical:ubuntu-24_04-lts:server:1.2.3"],
)
def test_an_image_that_is_not_there(image: str, side: Side) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no .*image Canonical:ubuntu-24_04-lts"):
        side.ladder(f"--cloud-image={image}")


def test_an_image_of_the_wrong_architecture(side: Side) -> None:
    with pytest.raises(ConfigurationError, match="is for Arm64"):
        side.ladder("--cloud-image=Canonical:ubuntu-24_04-lts:server-arm64:latest")


# --- the fake itself


@pytest.mark.parametrize(
    "action", ["", "read", "Microsoft.Compute", "Microsoft.Compute/*", "*/read"]
)
def test_an_address_that_asks_for_nothing_cannot_be_made(action: str) -> None:
    with pytest.raises(ValueError, match="the action that Azure documents"):
        Route("GET", re.compile("/x"), action, dict)


def test_nobody_may_anything_that_he_was_not_granted(azure: FakeAzure) -> None:
    rights = Rights(now=iter(range(100)).__next__)
    delete = "Microsoft.Resources/subscriptions/resourceGroups/delete"
    ours, other = f"{SCOPE}/resourceGroups/ours", f"{SCOPE}/resourceGroups/ours-2"
    assert not rights.may("a", delete, ours)
    rights.grant("a", "Microsoft.Resources/*", scope=ours.upper())
    assert rights.may("A", delete, ours)
    assert rights.may("a", delete, f"{ours}/providers/Microsoft.Compute/virtualMachines/x")
    assert not rights.may("a", delete, other)
    assert not rights.may("b", delete, ours)
    rights.grant("c", "*", scope=SCOPE, but=["Microsoft.Resources/subscriptions/*/delete"])
    assert not rights.may("c", delete, ours)
    assert rights.may("c", "Microsoft.Authorization/permissions/read", ours)
    rights.grant("d", "*", scope=SCOPE, after=10)
    assert [rights.may("d", delete, ours) for _ in range(12)].index(True) >= 8, "a while later"
    rights.denied.add(delete)
    assert not rights.may("a", delete, ours)
    # And whoever is not known at all is not let in.
    azure.entra.given.clear()
    with pytest.raises(CredentialsError, match="InvalidAuthenticationToken"):
        Side(azure, provider(azure)).create()


# --- refusals


@pytest.mark.parametrize(
    ("code", "message", "kind", "hint"),
    [
        (
            "SkuNotAvailable",
            "The requested VM size is not available.",
            CapacityError,
            "cloud-region",
        ),
        ("AllocationFailed", "Allocation failed.", CapacityError, "cloud-region"),
        ("ZonalAllocationFailed", "Allocation failed.", CapacityError, "cloud-region"),
        ("OverconstrainedAllocationRequest", "Allocation failed.", CapacityError, "cloud-region"),
        ("QuotaExceeded", "Operation could not be completed.", QuotaError, "Quotas"),
        (
            "OperationNotAllowed",
            (
                "Operation could not be completed as it results in exceeding approved Total"
                " Regional Cores quota."
            ),
            QuotaError,
            "Quotas",
        ),
        ("OperationNotAllowed", "The operation is not allowed.", ConfigurationError, "input"),
        (
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.Compute'.",
            ConfigurationError,
            "az provider register",
        ),
        (
            "MarketplacePurchaseEligibilityFailed",
            "Legal terms have not been accepted for this item.",
            ConfigurationError,
            "az vm image terms accept",
        ),
        ("InvalidParameter", "The value of parameter is invalid.", ConfigurationError, "input"),
    ],
)
@pytest.mark.parametrize("status", [0, 409])
def test_a_refusal_is_told_by_what_to_do_and_leaves_nothing(
    code: str, message: str, kind: type[ProviderError], hint: str, status: int, side: Side
) -> None:
    side.azure.refuse(code, status, message=message)
    placement = side.ladder()[0]
    with pytest.raises(kind) as caught:
        side.provider.create(placement, machine())
    assert type(caught.value) is kind
    assert code in str(caught.value)
    assert message.rstrip(".") in str(caught.value)
    assert hint in caught.value.hint
    assert side.azure.alive() == []


@pytest.mark.parametrize(
    "missing",
    [
        "Microsoft.Resources/subscriptions/resourceGroups/write",
        "Microsoft.Network/networkSecurityGroups/write",
        "Microsoft.Network/virtualNetworks/write",
        "Microsoft.Compute/virtualMachines/write",
        "Microsoft.Network/virtualNetworks/subnets/join/action",
    ],
)
def test_a_missing_action_is_named_and_nothing_stays(missing: str, side: Side) -> None:
    placement = side.ladder()[0]
    side.azure.rights.denied.add(missing)
    with pytest.raises(CredentialsError, match=missing):
        side.provider.create(placement, machine())
    assert side.azure.alive() == []


def test_throttling_and_stumbling_are_passed_over(side: Side) -> None:
    slow = {"error": {"code": "TooManyRequests", "message": "Slow down."}}
    side.azure.served.fail("PUT", "virtualMachines", 429, times=1, body=slow, Retry_After="1")
    side.azure.served.fail(
        "GET", "/skus", 503, times=1, body={"error": {"code": "ServerBusy", "message": "Busy."}}
    )
    began = time.monotonic()
    assert side.create().alive
    assert time.monotonic() - began >= 1, "as long as Azure says"


@pytest.mark.parametrize(("status", "code"), [(429, "TooManyRequests"), (503, "ServerBusy")])
def test_a_cloud_that_stays_busy_is_no_mistake_of_the_user(
    status: int, code: str, side: Side
) -> None:
    placement = side.ladder()[0]
    side.azure.served.fail(
        "PUT", "virtualMachines", status, times=20, body=error(code, "Busy."), Retry_After="0"
    )
    with pytest.raises(ProviderError, match=code) as caught:
        side.provider.create(placement, machine())
    assert type(caught.value) is ProviderError
    assert caught.value.hint == "Try again."
    assert side.azure.alive() == []


def test_a_network_that_comes_to_nothing_is_told(side: Side) -> None:
    placement = side.ladder()[0]
    side.azure.spoilt.add("virtualnetworks")
    with pytest.raises(ProviderError, match="Azure did not create network: its state is Failed"):
        side.provider.create(placement, machine())
    assert side.azure.alive() == []


@pytest.mark.parametrize("path", ["networkSecurityGroups", "virtualNetworks", "virtualMachines"])
def test_a_creation_that_breaks_half_way_leaves_nothing(path: str, side: Side) -> None:
    placement = side.ladder()[0]
    side.azure.served.fail(
        "PUT",
        path,
        400,
        times=1,
        body={"error": {"code": "InternalExecutionError", "message": "Half-way."}},
    )
    with pytest.raises(ConfigurationError, match="InternalExecutionError: Half-way"):
        side.provider.create(placement, machine())
    assert (side.azure.alive(), side.azure.things) == ([], {})


def test_an_answer_that_is_lost_is_asked_for_again(side: Side) -> None:
    side.azure.served.fail(
        "PUT",
        "virtualMachines",
        500,
        times=1,
        body={"error": {"code": "InternalServerError", "message": "Lost."}},
        late=True,
    )
    made = side.create()
    assert len(side.azure.groups) == 1
    assert side.provider.look(made).alive


def test_how_a_machine_deletes_itself(azure: FakeAzure) -> None:
    secret = Secret(json.dumps({"secret": "canary"}))
    side = Side(azure, provider(azure, secret))
    told = side.provider.deletion(side.request())
    assert told is not None
    assert told.key == secret
    own = side.provider.deletion(side.request(f"--cloud-permission-set={IDENTITY}"))
    assert own is not None
    assert (own.facts["identities"], own.key) == (
        [IDENTITY],
        secret,
    ), "which of them may, nobody knows"
    alone = Side(azure, provider(azure)).provider.deletion(
        side.request(f"--cloud-permission-set={IDENTITY}")
    )
    assert alone is not None
    assert alone.key is None
    with pytest.raises(CredentialsError, match="goes on costing"):
        Side(azure, provider(azure)).provider.deletion(side.request())
