"""The printed role is what the provider really asks for: every call recorded, with what Google
asks for besides, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from runner_action import cli
from runner_action.commands.reap import reap
from runner_action.errors import CredentialsError
from runner_action.model import Repository
from runner_action.providers.gcp.policy import permissions
from runner_action.runners.context import Context
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from tests.contracts.test_gcp import Side, machine
from tests.contracts.test_provider import gcp as provider
from tests.fakes import FakeClock, FakeForge

OPTIONS: dict[str, list[list[str]]] = {
    "plain": [[]],
    "gpu": [["--cloud-type=m+l4"]],
    "gpu beside": [["--cloud-gpu=t4"]],
    "spot": [["--cloud-spot=prefer"]],
    "image": [
        ["--cloud-image=octo-train/ours"],
        ["--cloud-image=octo-train/global/images/ours-20261101"],
    ],
    "account": [
        ["--cloud-permission-set=train@octo-train.iam.gserviceaccount.com,scopes=compute-rw"]
    ],
    "private": [["--cloud-gcp-private"]],
    "subnetwork": [["--cloud-gcp-subnetwork=ours"]],
    "key": [["--cloud-ssh-private"]],
}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeGcp]:
    made = FakeGcp()
    yield made
    made.close()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_recorded_calls_are_the_role(name: str, fake: FakeGcp) -> None:
    fake.reset()
    side, asked = Side(fake, provider(fake)), None
    for words in OPTIONS[name]:
        cloud = side.request(*[word for word in words if word != "--cloud-ssh-private"])
        asked = replace(cloud, ssh_public_key="ssh-rsa AAAA") if name == "key" else cloud
        ladder = side.provider.resolve(side.provider.plan(asked), asked)
        (made,) = side.provider.create(
            ladder[0], machine(f"cml-{OPTIONS[name].index(words)}")
        ).instances
        side.provider.console(side.provider.look(made))
        side.provider.destroy(made.name, made)
        assert side.provider.find({}) == []
        reap(
            Context(
                Repository(url="https://github.com/octo/train"),
                FakeForge(),
                side.provider,
                FakeClock(),
            )
        )
    assert asked
    # Whoever may not touch firewall rules can still delete and sweep: there is none where no key
    # was given.
    recorded = set(fake.asked) - (
        set()
        if name == "key"
        else {"compute.firewalls.delete", "compute.firewalls.list", "compute.networks.updatePolicy"}
    )
    assert recorded == permissions(asked)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_role_is_enough_and_none_of_it_too_much(name: str, fake: FakeGcp) -> None:
    """Whoever has all of it launches and ends; whoever lacks what a creation needs is refused,
    in one sentence, and nothing stays."""
    side = Side(fake, provider(fake))
    cloud = side.request(*[word for word in OPTIONS[name][0] if word != "--cloud-ssh-private"])
    asked = replace(cloud, ssh_public_key="ssh-rsa AAAA") if name == "key" else cloud
    fake.reset()
    ladder = side.provider.resolve(side.provider.plan(asked), asked)
    looked = set(fake.asked)
    side.provider.create(ladder[0], machine())
    creating = set(fake.asked) - looked - {"compute.instances.list", "compute.firewalls.list"}
    for missing in sorted(creating & permissions(asked)):
        fake.reset()
        fake.denied.add(missing)
        with pytest.raises(CredentialsError, match=missing.rpartition(".")[0]):
            side.provider.create(ladder[0], machine())
        fake.denied.clear()
        side.provider.destroy("cml-1")
        assert (fake.alive(), dict(fake.firewalls)) == ([], {}), missing


def test_the_command_prints_a_role_that_gcloud_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["permissions", "gcp", "--cloud-spot=prefer", "--cloud-region=us-east"], {}) == 0
    )
    role = yaml.safe_load(capsys.readouterr().out)
    assert set(role) == {"title", "description", "stage", "includedPermissions"}
    assert "compute.instances.create" in role["includedPermissions"]
    assert not any(
        "*" in permission or "firewall" in permission for permission in role["includedPermissions"]
    )
