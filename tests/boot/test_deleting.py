"""Lives on clouds where a power-off is not the end: from the user data that the launcher gave,
through the cloud's own way to the machine, to the machine's own deletion, which its power-off
follows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner_action.model import ProviderName
from runner_action.sandbox.forges.jobs import Job
from tests.boot.lab import ONLINE, Lab, stages, until
from tests.boot.test_ec2 import CLOUD_INIT_IS_DONE, found, probe
from tests.sandbox.conftest import Launcher

LOOKS = {
    "key": "cat /var/lib/cml-runner/deletion.json 2>&1",
    "copies": (
        "sudo find /var/lib/cloud /run/cloud-init /var/lib/waagent -type f \\( -name"
        " 'user-data.txt*' -o -name ovf-env.xml -o -name cloud-config.txt \\)"
    ),
}


@pytest.mark.parametrize(
    ("cloud", "release"), [("gcp", "bullseye"), ("azure", "trixie")], indirect=True
)
def test_a_machine_that_is_taken_restarts_its_job_and_deletes_itself(
    lab: Lab, tmp_path: Path
) -> None:
    world = lab.world
    run = world.forge.queue_run()
    # What the machine of a cloud over TLS has to be told; the others' authorities are everybody's.
    authority = world.folder / "authority.pem"
    trusting = [f"--ca-certificates={authority.read_text()}"] if authority.exists() else []

    def launching(job: Job) -> str:
        if job.attempt > 1:  # that it is asked again is what matters here
            return "failure"
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launcher = Launcher(
            world, tmp_path, "--labels=cml", "--idle-timeout=300", *trusting, **environ
        )
        return "failure" if launcher.wait(ONLINE) else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    look = world.forge.add_job(
        run, "look", ["cml"], 0, f"{CLOUD_INIT_IS_DONE}\n{probe(**LOOKS)}", needs=["launch"]
    )
    train = world.forge.add_job(run, "train", ["cml"], 0, "sleep 300", needs=["look"])
    world.forge.begin(run)
    until(lambda: "train of run" in lab.console(), "the job", 500, lab.console)
    asked = signatures(lab)
    world.metadata.notice(next(iter(world.machines.living)), 30)
    until(lambda: run.attempt == 2, "the restart", 60, lab.console)
    until(lambda: not world.cloud.alive(), "the end", 120, lab.console)
    told = found(look)
    assert train.conclusion == "failure"
    assert "Permission denied" in told["key"]
    assert told["copies"] == "", told
    assert signatures(lab) == asked + 1, "with what it was given, on the machine"
    assert "not-deleted" not in stages(lab.console())
    assert world.left() == []
    if world.provider is ProviderName.AZURE:
        assert any("Ready" in one for one in lab.service.ready), lab.service.ready
        (machine,) = world.machines.living
        assert world.metadata.fate(machine).acknowledged == [f"event-{machine}"]


REFUSED = 150.0
"""Seconds: more than systemd gives a unit to stop, which is 90, and ours 100."""
DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"


@pytest.mark.parametrize("how", ["poweroff", "idle", "killed"])
@pytest.mark.parametrize(("cloud", "release"), [("azure", "trixie")], indirect=True)
def test_a_machine_at_azure_is_not_off_before_azure_has_accepted_its_deletion(
    how: str, lab: Lab, tmp_path: Path
) -> None:
    world, seconds = lab.world, 5 if how == "idle" else 300
    trusting = f"--ca-certificates={(world.folder / 'authority.pem').read_text()}"
    launcher = Launcher(
        world,
        tmp_path,
        "--labels=cml",
        f"--idle-timeout={seconds}",
        "--first-job-timeout=300",
        "--no-retry",
        trusting,
        **world.job_environ(),
    )
    assert launcher.wait(ONLINE) == 0, launcher.told
    assert world.azure
    world.azure.rights.denied.add(DELETE)
    killing = "sudo systemd-run sh -c \"sleep 30; pkill -KILL -f '[a]gent run'\""  # when idle
    ends = {"poweroff": "sudo poweroff", "idle": "true", "killed": killing}
    world.forge.queue_job(["cml"], 0, f"{CLOUD_INIT_IS_DONE}\n{ends[how]}")
    until(lambda: "not-deleted" in stages(lab.console()), "the first try", 500, lab.console)
    assert world.forge.seats() == [], "off the list before"
    (number,) = world.machines.living
    end = time.monotonic() + REFUSED
    while time.monotonic() < end:
        assert world.machines.runs(number), lab.console()[-6000:]
        time.sleep(1)
    world.azure.rights.denied.clear()
    until(lambda: not world.cloud.alive(), "the end", 180, lab.console)
    assert "deleting" in stages(lab.console())
    assert world.left() == []


def signatures(lab: Lab) -> int:
    """How often somebody has logged in with the launcher's key or secret."""
    return lab.world.azure.entra.logins if lab.world.azure else lab.world.gcp.tokens.signed
