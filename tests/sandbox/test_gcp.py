"""Whole lives on Google Cloud: the real launcher, agents as processes, a Compute Engine that
asks who is asking and where a stopped machine stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.runners import console
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, busy, job_of, training, until

MACHINE = "machine@octo-train.iam.gserviceaccount.com"


@pytest.fixture
def world() -> Iterator[World]:
    with World(cloud="gcp", timer_factor=0.02) as made:
        yield made


def secret(world: World) -> str:
    """A line of the launcher's private key."""
    return world.gcp.key["private_key"].splitlines()[3]


def stages(world: World, number: int = 0) -> list[str]:
    return [
        str(line["stage"])
        for line in console.entries(world.machines.console(list(world.machines.living)[number]))
    ]


def gone(world: World, seconds: float = 40) -> None:
    until(lambda: not world.left(), f"nothing to be left, but there is {world.left()}", seconds)


def test_a_machine_deletes_itself_with_the_launchers_key(world: World, launch: Launch) -> None:
    launcher = launch(
        "--labels=train", "--idle-timeout=2", "--first-job-timeout=60", "--cloud-spot=prefer"
    )
    assert launcher.wait() == 0, launcher.told
    assert launcher.outputs["instanceIp"] == "203.0.113.7"
    job = world.forge.queue_job(["train"], 0.2)
    (number,) = world.machines.living
    given = world.machines.root(number) / "var/lib/cml-runner/deletion.json"
    assert json.loads(given.read_text())["key"]["client_email"].startswith("launcher@")
    assert given.stat().st_mode & 0o777 == 0o700
    until(lambda: job.conclusion == "success", "the job")
    gone(world)
    assert world.gcp.tokens.signed == 1, "by a token that the machine has signed itself"
    assert world.gcp.actions().count("instances.delete") == 1
    told = "".join(
        line for line in launcher.told.splitlines() if not line.startswith("::add-mask::")
    )
    for place in (told, launcher.summary, str(launcher.outputs), world.machines.console(number)):
        assert secret(world) not in place
    cached = [
        path for path in world.machines.root(number).glob("var/lib/cloud/**/*") if path.is_file()
    ]
    assert not any(secret(world) in path.read_text("utf-8", "replace") for path in cached)


def test_a_machine_deletes_itself_as_its_own_account_and_has_no_key(
    world: World, launch: Launch
) -> None:
    launcher = launch(
        "--labels=train",
        "--idle-timeout=1",
        f"--cloud-permission-set={MACHINE},scopes=compute-rw",
        "--first-job-timeout=8",
    )
    assert launcher.wait() == 0, launcher.told
    signed = world.gcp.tokens.signed
    (number,) = world.machines.living
    assert "key" not in json.loads(
        (world.machines.root(number) / "var/lib/cml-runner/deletion.json").read_text()
    )
    gone(world)
    assert world.gcp.tokens.signed == signed, "by the token of the metadata service"


def test_a_machine_that_cannot_stops_and_the_next_launch_deletes_it(
    world: World, launch: Launch
) -> None:
    stops = launch(
        "--labels=train",
        "--idle-timeout=1",
        "--first-job-timeout=8",
        f"--cloud-permission-set={MACHINE},scopes=storage-rw",
        "--name=stops",
    )
    assert stops.wait() == 0, stops.told
    assert "will not be able to delete itself" in stops.told
    until(
        lambda: {one["status"] for one in world.gcp.instances.values()} == {"TERMINATED"},
        "the machine to stop",
    )
    (number,) = world.machines.living
    assert not (world.machines.root(number) / "var/lib/cml-runner/deletion.json").exists()
    (name,) = world.left()
    assert name.startswith("instance stops-"), "a stopped machine costs"
    second = launch(
        "--labels=train", "--idle-timeout=1", "--first-job-timeout=8", GITHUB_JOB="second"
    )
    assert second.wait() == 0, second.told
    assert f"({name.split()[1]}): it is stopped, and will not be started again" in second.told
    gone(world)


def test_google_deletes_a_machine_on_which_everything_is_dead(world: World, launch: Launch) -> None:
    """Agent, watchdog and timer: as when the kernel hangs. What is left is the time for which
    Google lets it run."""
    launcher = launch("--labels=train", "--max-lifetime=15m", "--start-timeout=60s")
    assert launcher.wait() == 0, launcher.told
    (number,) = world.machines.living
    supervisor = world.machines.living[number].process
    for pid in descendants(supervisor.pid):
        os.kill(pid, signal.SIGSTOP)
    supervisor.send_signal(signal.SIGSTOP)
    until(lambda: number in world.gcp._to_delete, "Google's own end", 40)
    supervisor.send_signal(signal.SIGCONT)
    # Google gives it 30 s after the power button.
    until(lambda: not world.gcp.alive(), "the machine to be gone", 60)


def test_an_agent_that_is_killed_takes_its_machine_with_it(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--idle-timeout=300")
    assert launcher.wait() == 0, launcher.told
    (number,) = world.machines.living
    agents = [
        pid
        for pid in descendants(world.machines.living[number].process.pid)
        if b"agent\0run" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    gone(world)
    assert agents
    assert "instances.delete" in world.gcp.actions()


def test_a_spot_machine_that_is_taken_is_followed_by_another(world: World, launch: Launch) -> None:
    run = training(world, launch, "--cloud-spot", "--idle-timeout=2", "--first-job-timeout=60")
    busy(world, run)
    first = next(iter(world.machines.living))
    world.metadata.notice(first, 30)
    until(
        lambda: (job := job_of(run, "train", 2)) is not None and job.conclusion == "success",
        "the second try",
        60,
    )
    assert "interrupted" in stages(world), (
        "by the notice or by the power button, which Google presses with it"
    )
    gone(world)


def test_a_key_opens_one_rule_that_goes_with_the_machine(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    subprocess.run(
        ["openssl", "genrsa", "-out", str(tmp_path / "ssh"), "2048"],
        check=True,
        capture_output=True,
    )
    launcher = launch(
        "--labels=train",
        "--idle-timeout=1",
        "--first-job-timeout=60",
        CML_RUNNER_CLOUD_SSH_PRIVATE=(tmp_path / "ssh").read_text(),
    )
    assert launcher.wait() == 0, launcher.told
    assert list(world.gcp.firewalls) == [f"{launcher.outputs['runner-name']}-ssh"]
    assert "ssh -i KEY ubuntu@203.0.113.7" in launcher.told
    world.forge.queue_job(["train"], 0.1)
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
    world.gcp.refuse(
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        times=2,
        message="The zone does not have enough resources: (resource type:compute).",
    )
    launcher = launch(
        "--labels=train", "--idle-timeout=1", "--first-job-timeout=8", "--cloud-region=us-east"
    )
    assert launcher.wait() == 0, launcher.told
    assert world.gcp.actions().count("instances.create") == 3
    assert "us-east1-d" in launcher.told
    gone(world)


def test_a_startup_script_that_fails_is_told_by_the_serial_port(
    world: World, launch: Launch
) -> None:
    launcher = launch(
        "--labels=train", "--cloud-startup-script=#!/bin/sh\necho no such package >&2\nexit 3\n"
    )
    assert launcher.wait() == 6, launcher.told
    assert "no such package" in launcher.told
    gone(world)


def test_wrong_keys_and_missing_permissions_in_one_sentence(world: World, launch: Launch) -> None:
    other = launch(
        GOOGLE_APPLICATION_CREDENTIALS_DATA=json.dumps(
            {**world.gcp.key, "private_key": "canary-no-key"}
        )
    )
    assert other.wait() == 4, other.told
    assert "holds neither a service account's key" in other.told
    assert "canary-no-key" not in other.told.partition("::error")[2]
    world.gcp.denied.add("compute.instances.create")
    denied = launch()
    assert denied.wait() == 4, denied.told
    assert "compute.instances.create" in denied.told
    assert world.left() == []
