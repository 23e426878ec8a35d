"""Whole lives on Azure: the real launcher, agents as processes, a Resource Manager over TLS
where a stopped machine goes on costing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.agent.azure import CANNOT_DELETE
from runner_action.bootstrap import HOME
from runner_action.runners import console
from runner_action.sandbox.clouds.azure.entra import (
    CLIENT,
    LAUNCHER,
    SCOPE,
    SECRET,
    SUBSCRIPTION,
    TENANT,
)
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, busy, example, job_of, training, until
from tests.sandbox.test_story import OLDER, agent_of

IDENTITY = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ours/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/machine"
)
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


def test_a_machine_deletes_its_group_with_the_launchers_secret(
    world: World, launch: Launch
) -> None:
    launcher = launch(
        "--labels=train", "--idle-timeout=2", "--first-job-timeout=60", "--cloud-spot=prefer"
    )
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
    told = "".join(
        line for line in launcher.told.splitlines() if not line.startswith("::add-mask::")
    )
    for place in (told, launcher.summary, str(launcher.outputs), world.machines.console(number)):
        assert SECRET not in place


def test_a_machine_deletes_its_group_by_its_own_identity_before_any_secret(
    world: World, launch: Launch
) -> None:
    granted(world)
    launcher = launch(
        "--labels=train",
        "--idle-timeout=1",
        "--first-job-timeout=60",
        f"--cloud-permission-set={IDENTITY}",
    )
    assert launcher.wait() == 0, launcher.told
    assert world.azure
    logins = world.azure.entra.logins
    world.forge.queue_job(["train"], 0.1)
    gone(world)
    assert world.azure.entra.logins == logins


@pytest.mark.parametrize("identity", [False, True], ids=["secret", "identity"])
def test_a_whole_life_with_the_printed_role_alone(
    identity: bool, world: World, launch: Launch
) -> None:
    """The launcher's, which the machine with its secret has too; the identity's is the page's."""
    assert world.azure
    argv = [f"--cloud-permission-set={IDENTITY}"] if identity else []
    command = [sys.executable, "-m", "runner_action", "permissions", "azure", *argv]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    world.azure.rights.revoke(LAUNCHER)
    world.azure.rights.grant(LAUNCHER, *printed["Actions"], scope=SCOPE)
    if identity:
        granted(world)
    launcher = launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=60", *argv)
    assert launcher.wait() == 0, launcher.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def test_without_any_secret_as_the_example_does_it(world: World, launch: Launch) -> None:
    """The inputs of examples/oidc-azure.yml, and the job's own id token."""
    granted(world)
    given = example(
        "oidc-azure",
        AZURE_CLIENT_ID=CLIENT,
        AZURE_TENANT_ID=TENANT,
        AZURE_SUBSCRIPTION_ID=SUBSCRIPTION,
        MACHINE_IDENTITY=IDENTITY,
    )
    launcher = launch(
        "--idle-timeout=1", "--first-job-timeout=60", **given, **world.id_token_environ()
    )
    assert launcher.wait() == 0, launcher.told
    assert world.azure
    assert world.azure.entra.logins == 0, "nobody had a secret"
    assert set(world.github.id_tokens.values()) == {"api://AzureADTokenExchange"}
    world.forge.queue_job([launcher.outputs["label"]], 0.1)
    gone(world)
    told = "".join(
        line for line in launcher.told.splitlines() if not line.startswith("::add-mask::")
    )
    (number,) = world.machines.living
    for place in (told, launcher.summary, str(launcher.outputs), world.machines.console(number)):
        assert "canary" not in place


# --- the right to delete itself: proven before it is a runner, and used until it is accepted

STORAGE, DELETE = (
    "Microsoft.Storage/storageAccounts/read",
    "Microsoft.Resources/subscriptions/resourceGroups/delete",
)
PROOF = "Microsoft.Authorization/permissions/read"
OTHERS = f"{SCOPE}/resourceGroups/ours"
LIVES = ("--labels=train", "--idle-timeout=1", "--first-job-timeout=60")
OUTAGE = 28.0
"""Seconds: longer than it was once tried for."""


def stages(world: World) -> list[str]:
    (number,) = world.machines.living
    return [line["stage"] for line in console.entries(world.machines.console(number))]


def test_an_identity_that_may_only_read_storage_and_a_secret(world: World, launch: Launch) -> None:
    """As CML's users have it: an identity for what their jobs need, and AZURE_CLIENT_SECRET."""
    assert world.azure
    world.azure.rights.grant(IDENTITY, STORAGE, PROOF, scope=SCOPE)
    launcher = launch(*LIVES, f"--cloud-permission-set={IDENTITY}")
    assert launcher.wait() == 0, launcher.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)
    assert "not-deleted" not in stages(world), "the secret comes right behind the identity"


@pytest.mark.parametrize(
    ("actions", "scope"),
    [((), SCOPE), ((STORAGE, PROOF), SCOPE), ((DELETE, PROOF), OTHERS), ((DELETE,), SCOPE)],
    ids=["nothing", "storage", "elsewhere", "unproven"],
)
def test_a_machine_that_may_not_delete_itself_never_becomes_a_runner(
    actions: tuple[str, ...], scope: str, world: World, launch: Launch
) -> None:
    assert world.azure
    world.azure.rights.grant(IDENTITY, *actions, scope=scope)
    launcher = launch(
        *LIVES,
        "--start-timeout=30",
        f"--cloud-permission-set={IDENTITY}",
        AZURE_CLIENT_SECRET="",
        **hosted(world),
    )
    assert launcher.wait(120) == 6, launcher.told
    assert CANNOT_DELETE in launcher.told
    assert (DELETE if STORAGE in actions else PROOF) in launcher.told, "what is missing"
    assert CANNOT_DELETE in PAGE
    assert "configured" not in stages(world), "it has not registered"
    gone(world)


def test_a_role_that_takes_a_while_to_work_is_waited_for(world: World, launch: Launch) -> None:
    assert world.azure
    world.azure.rights.grant(IDENTITY, DELETE, PROOF, scope=SCOPE, after=12)
    launcher = launch(
        *LIVES, f"--cloud-permission-set={IDENTITY}", AZURE_CLIENT_SECRET="", **hosted(world)
    )
    assert launcher.wait(120) == 0, launcher.told
    assert stages(world).index("unproven") < stages(world).index("configured")
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def hosted(world: World) -> dict[str, str]:
    """A launcher without a secret: as the identity of the machine it runs on."""
    return {"IDENTITY_ENDPOINT": f"{world.cloud.url}/identity", "IDENTITY_HEADER": "canary-header"}


def begin(world: World, what: str, number: str) -> None:
    assert world.azure
    if what == "403":
        world.azure.rights.denied.add(DELETE)
    elif what == "token":
        world.metadata.fate(number).without_tokens = world.azure.entra.down = True
    else:
        body = {
            "error": {
                "code": "ScopeLocked" if what == "409" else "ServerBusy",
                "message": "Not now.",
            }
        }
        world.azure.served.fail("DELETE", "resource[gG]roups", int(what), times=10_000, body=body)


def over(world: World, number: str) -> None:
    assert world.azure
    world.azure.rights.denied.clear()
    world.azure.served.faults.clear()
    world.metadata.fate(number).without_tokens = world.azure.entra.down = False


@pytest.mark.parametrize(
    ("what", "lasting"),
    [("403", 6), ("409", 6), ("0", 6), ("500", OUTAGE), ("token", OUTAGE)],
    ids=["refused", "locked", "silent", "broken", "no-token"],
)
def test_a_machine_stays_up_until_its_deletion_was_accepted(
    what: str, lasting: float, world: World, launch: Launch
) -> None:
    granted(world)
    assert launch(*LIVES, f"--cloud-permission-set={IDENTITY}").wait(120) == 0
    (number,) = world.machines.living
    begin(world, what, number)
    world.forge.queue_job(["train"], 0.1)
    until(lambda: "not-deleted" in stages(world), "the first try", 60)
    assert world.forge.seats() == [], "it is off the list before"
    end = time.monotonic() + lasting
    while time.monotonic() < end:
        assert world.machines.runs(number), "it has powered off, and costs on"
        time.sleep(0.2)
    over(world, number)
    gone(world, 60)
    assert stages(world)[-1] == "deleting"


@pytest.mark.parametrize(
    "how", ["a job powers it off", "the watchdog ends it", "the agent is killed"]
)
def test_whoever_ends_it_the_deletion_comes_first(how: str, world: World, launch: Launch) -> None:
    granted(world)
    assert (
        launch("--labels=train", "--idle-timeout=300", f"--cloud-permission-set={IDENTITY}").wait(
            120
        )
        == 0
    )
    (number,) = world.machines.living
    begin(world, "403", number)
    if how == "a job powers it off":
        world.forge.queue_job(
            ["train"], 0.1, f"{world.machines.root(number)}/usr/bin/poweroff; sleep 60"
        )
    elif how == "the agent is killed":
        os.kill(agent_of(world), signal.SIGKILL)
    else:
        os.kill(agent_of(world), signal.SIGSTOP)
        home = world.machines.root(number) / HOME[1:]
        subprocess.run([sys.executable, "-c", OLDER], cwd=home, check=True)
    until(lambda: "not-deleted" in stages(world), "the first try", 60)
    time.sleep(2)
    assert world.machines.runs(number), "it has powered off, and costs on"
    over(world, number)
    gone(world, 60)


def test_one_that_was_stopped_from_outside_is_deleted_by_the_next_launch(
    world: World, launch: Launch
) -> None:
    """As `az vm stop` does it, after which the machine can do nothing more."""
    granted(world)
    stopped = launch(*LIVES, f"--cloud-permission-set={IDENTITY}", "--name=stops")
    assert stopped.wait() == 0, stopped.told
    (number,) = world.machines.living
    world.machines.living[number].process.kill()
    until(lambda: not world.machines.runs(number), "the machine to stop")
    second = launch(
        "--labels=other", "--idle-timeout=1", "--first-job-timeout=60", GITHUB_JOB="second"
    )
    assert second.wait() == 0, second.told
    assert (
        f"({stopped.outputs['runner-name']}): it is stopped, and will not be started again"
        in second.told
    )
    world.forge.queue_job(["other"], 0.1)
    until(lambda: not world.cloud.alive(), "both to be gone", 40)


def test_a_launch_whose_machine_could_not_end_is_refused(world: World, launch: Launch) -> None:
    """As with a GitHub job's id token and no identity for the machine."""
    refused = launch(AZURE_CLIENT_SECRET="", **hosted(world))
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
    until(
        lambda: (job := job_of(run, "train", 2)) is not None and job.conclusion == "success",
        "the second try",
        60,
    )
    gone(world)


def test_a_launch_that_is_cancelled_leaves_nothing(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--cloud-startup-script=#!/bin/sh\nsleep 60\n")
    until(lambda: world.machines.living, "the machine")
    launcher.kill()
    assert launcher.wait() == 143, launcher.told
    gone(world)


def test_zones_without_capacity_are_passed_over_and_their_operations_read(
    world: World, launch: Launch
) -> None:
    assert world.azure
    world.azure.refuse(
        "AllocationFailed",
        times=2,
        message=(
            "Allocation failed. We do not have sufficient capacity for the requested VM size in"
            " this region."
        ),
    )
    launcher = launch(
        "--labels=train", "--idle-timeout=1", "--first-job-timeout=60", "--cloud-region=us-east"
    )
    assert launcher.wait() == 0, launcher.told
    assert world.azure.actions().count("virtualMachines/write") == 3
    assert "eastus-2" in launcher.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def test_a_startup_script_that_fails_is_told_by_the_boot_diagnostics(
    world: World, launch: Launch
) -> None:
    launcher = launch(
        "--labels=train", "--cloud-startup-script=#!/bin/sh\necho no such package >&2\nexit 3\n"
    )
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
