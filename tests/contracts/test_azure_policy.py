"""The printed role is what the provider really asks for: a launch with it and nothing else comes
through, and of what it grants nothing is left over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runner_action import cli
from runner_action.commands.reap import reap
from runner_action.model import Repository
from runner_action.providers.azure.policy import actions
from runner_action.runners.context import Context
from runner_action.sandbox.clouds.azure.arm import FakeAzure
from runner_action.sandbox.clouds.azure.entra import LAUNCHER, SCOPE
from tests.contracts.test_azure import (
    ENCRYPTION,
    IDENTITY,
    SUBNET,
    Side,
    azure,
    machine,
    provider,
    served,
)
from tests.fakes import FakeClock, FakeForge

__all__ = ["azure", "served"]
IMAGE = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/ours/providers"
    "/Microsoft.Compute/images/ours"
)
GALLERY = (
    f"{SCOPE}/resourceGroups/ours/providers"
    "/Microsoft.Compute/galleries/ours/images/train/versions/1"
)
OPTIONS: dict[str, list[str]] = {
    "plain": [],
    "gpu": ["--cloud-type=m+t4", "--cloud-region=eu-west"],
    "spot": ["--cloud-spot=prefer"],
    "image": [f"--cloud-image={IMAGE}"],
    "gallery": [f"--cloud-image={GALLERY}"],
    "identity": [f"--cloud-permission-set={IDENTITY}"],
    "encryption": [f"--cloud-azure-disk-encryption-set={ENCRYPTION}"],
    "subnet": [f"--cloud-azure-subnet={SUBNET}"],
    "private": [f"--cloud-azure-subnet={SUBNET}", "--cloud-azure-private"],
    "key": ["--cloud-ssh-private"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_launch_with_the_printed_role_and_nothing_else(name: str, azure: FakeAzure) -> None:
    side = Side(azure, provider(azure))
    cloud = side.request(*[word for word in OPTIONS[name] if word != "--cloud-ssh-private"])
    asked = replace(cloud, ssh_public_key="ssh-rsa AAAA") if name == "key" else cloud
    allowed = actions(asked)
    azure.rights.revoke(LAUNCHER)
    azure.rights.grant(LAUNCHER, *allowed, scope=SCOPE)
    ladder = side.provider.resolve(side.provider.plan(asked), asked)
    (made,) = side.provider.create(ladder[0], machine()).instances
    side.provider.console(side.provider.look(made))
    side.provider.destroy(made.name, made)
    assert side.provider.find({}) == []
    train = Repository(url="https://github.com/octo/train")
    reap(Context(train, FakeForge(), side.provider, FakeClock()))
    # What the provider does without, such as a list of sizes, it would ask for as well.
    assert set(azure.asked) <= allowed, set(azure.asked) - allowed
    # A group's deletion deletes what is in it, and cards, addresses and disks are read to be
    # joined, by Azure itself.
    rest = allowed - set(azure.asked)
    assert all(action.endswith(("/delete", "/read")) for action in rest), rest


def test_the_command_prints_a_role_that_az_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(
            ["permissions", "azure", "--cloud-spot=prefer"],
            {"AZURE_SUBSCRIPTION_ID": "11111111-2222-3333-4444-555555555555"},
        )
        == 0
    )
    role = json.loads(capsys.readouterr().out)
    assert role["AssignableScopes"] == ["/subscriptions/11111111-2222-3333-4444-555555555555"]
    assert "Microsoft.Compute/virtualMachines/write" in role["Actions"]
    assert not any("*" in action or "ManagedIdentity" in action for action in role["Actions"])
