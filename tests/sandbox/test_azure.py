"""Whole lives on Azure: the real launcher, agents as processes, a Resource Manager over TLS where a stopped machine goes on costing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action import console
from runner_action.sandbox.azure_entra import CLIENT, SCOPE, SECRET, SUBSCRIPTION, TENANT
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, busy, example, job_of, training, until

IDENTITY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ours/providers/Microsoft.ManagedIdentity/userAssignedIdentities/machine"
PAGE = (Path(__file__).parents[2] / "docs" / "azure.md").read_text("utf-8")


def granted(world: World, identity: str = IDENTITY) -> World:
    """A world in which that identity has the role that docs/azure.md makes for it."""
    assert world.azure
    (role,) = re.findall(r"az role definition create --role-definition '(\{.*?\})'", PAGE, re.S)
    world.azure.rights.grant(identity, *json.loads(role)["Actions"], scope=SCOPE)
    return world


@pytest.fixture
def world() -> Iterator[World]:
    with World(cloud="azure", timer_factor=0.02) as made:
        yield made


def gone(world: World, seconds: float = 40) -> None:
    until(lambda: not world.left(), f"nothing to be left, but there is {world.left()}", seconds)


def test_a_machine_deletes_its_group_with_the_launchers_secret(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--idle-timeout=2", "--first-job-timeout=60", "--cloud-spot=prefer")
    assert launcher.wait() == 0, launcher.told
    assert launcher.outputs["instanceIp"] == "203.0.113.7"
    assert world.azure
    logins = world.azure.entra.logins
    job = world.forge.queue_job(["train"], 0.2)
    (number,) = world.machines.living
    given = world.machines.root(number) / "var/lib/cml-runner/deletion.json"
    assert json.loads(given.read_text())["key"]["secret"] == SECRET
    assert given.stat().st_mode & 0o777 == 0o700
    until(lambda: job.conclusion == "success", "the job")
    gone(world)
    assert world.azure.entra.logins == logins + 1, "the machine has logged in itself"
    assert world.azure.actions().count("resourceGroups/delete") == 1
    told = "".join(line for line in launcher.told.splitlines() if not line.startswith("::add-mask::"))
    for place in (told, launcher.summary, str(launcher.outputs), world.machines.console(number)):
        assert SECRET not in place


def test_a_machine_deletes_its_group_by_its_own_identity_and_has_no_secret(world: World, launch: Launch) -> None:
    granted(world)
    launcher = launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=60", f"--cloud-permission-set={IDENTITY}")
    assert launcher.wait() == 0, launcher.told
    assert world.azure
    logins = world.azure.entra.logins
    (number,) = world.machines.living
    assert "key" not in json.loads((world.machines.root(number) / "var/lib/cml-runner/deletion.json").read_text())
    world.forge.queue_job(["train"], 0.1)
    gone(world)
    assert world.azure.entra.logins == logins


def test_without_any_secret_as_the_example_does_it(world: World, launch: Launch) -> None:
    """The inputs of examples/oidc-azure.yml, and the job's own id token."""
    granted(world)
    given = example("oidc-azure", AZURE_CLIENT_ID=CLIENT, AZURE_TENANT_ID=TENANT, AZURE_SUBSCRIPTION_ID=SUBSCRIPTION, MACHINE_IDENTITY=IDENTITY)
    launcher = launch("--idle-timeout=1", "--first-job-timeout=60", **given, **world.id_token_environ())
    assert launcher.wait() == 0, launcher.told
    assert world.azure
    assert world.azure.entra.logins == 0, "nobody had a secret"
    assert set(world.github.id_tokens.values()) == {"api://AzureADTokenExchange"}
    world.forge.queue_job([launcher.outputs["label"]], 0.1)
    gone(world)
    told = "".join(line for line in launcher.told.splitlines() if not line.startswith("::add-mask::"))
    (number,) = world.machines.living
    for place in (told, launcher.summary, str(launcher.outputs), world.machines.console(number)):
        assert "canary" not in place


def test_a_machine_whose_identity_may_not_stops_and_the_next_launch_deletes_it(world: World, launch: Launch) -> None:
    granted(world)
    assert world.azure
    stops = launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=60", f"--cloud-permission-set={IDENTITY}", "--name=stops")
    assert stops.wait() == 0, stops.told
    world.azure.rights.denied.add("Microsoft.Resources/subscriptions/resourceGroups/delete")
    world.forge.queue_job(["train"], 0.1)
    (number,) = world.machines.living
    until(lambda: not world.machines.runs(number), "the machine to stop", 60)
    assert any(line["stage"] == "not-deleted" and "AuthorizationFailed" in str(line) for line in console.said(world.machines.console(number)))
    world.azure.rights.denied.clear()
    second = launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=60", GITHUB_JOB="second")
    assert second.wait() == 0, second.told
    assert "(stops): it has stopped, and nobody starts it again" in second.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def test_a_launch_whose_machine_could_not_end_is_refused(world: World, launch: Launch) -> None:
    """As with a GitHub job's id token and no identity for the machine."""
    refused = launch(AZURE_CLIENT_SECRET="", IDENTITY_ENDPOINT=f"{world.cloud.url}/identity", IDENTITY_HEADER="canary-header")
    assert refused.wait() == 4, refused.told
    assert "goes on costing" in refused.told
    assert "cloud-permission-set" in refused.told
    assert world.left() == []
    assert world.azure
    assert not any(action.endswith("/write") for action in world.azure.actions())


def test_a_spot_machine_that_is_taken_is_followed_by_another(world: World, launch: Launch) -> None:
    run = training(world, launch, "--cloud-spot", "--idle-timeout=2", "--first-job-timeout=60")
    busy(world, run)
    world.metadata.notice(next(iter(world.machines.living)), 30)
    until(lambda: (job := job_of(run, "train", 2)) is not None and job.conclusion == "success", "the second try", 60)
    gone(world)


def test_a_launch_that_is_cancelled_leaves_nothing(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--cloud-startup-script=#!/bin/sh\nsleep 60\n")
    until(lambda: world.machines.living, "the machine")
    launcher.kill()
    assert launcher.wait() == 143, launcher.told
    gone(world)


def test_zones_without_capacity_are_passed_over_and_their_operations_read(world: World, launch: Launch) -> None:
    assert world.azure
    world.azure.refuse("AllocationFailed", times=2, message="Allocation failed. We do not have sufficient capacity for the requested VM size in this region.")
    launcher = launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=60", "--cloud-region=us-east")
    assert launcher.wait() == 0, launcher.told
    assert world.azure.actions().count("virtualMachines/write") == 3
    assert "eastus-2" in launcher.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def test_a_startup_script_that_fails_is_told_by_the_boot_diagnostics(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--cloud-startup-script=#!/bin/sh\necho no such package >&2\nexit 3\n")
    assert launcher.wait() == 6, launcher.told
    assert "no such package" in launcher.told
    gone(world)


def test_a_wrong_secret_and_a_missing_action_in_one_sentence(world: World, launch: Launch) -> None:
    other = launch(AZURE_CLIENT_SECRET="canary-other")
    assert other.wait() == 4, other.told
    assert "AADSTS7000215" in other.told
    assert world.azure
    world.azure.rights.denied.add("Microsoft.Compute/virtualMachines/write")
    denied = launch()
    assert denied.wait() == 4, denied.told
    assert "Microsoft.Compute/virtualMachines/write" in denied.told
    gone(world)
