"""The other clouds' ways to give a machine its user data. They have no provider yet: what a launch would have given is made here.

Google's metadata server, Azure's provisioning disc with its two services, and a disc of nobody's; each machine has a job and is taken.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runner_action import bootstrap
from runner_action.model import LaunchJob
from runner_action.sandbox.jobs import Job
from tests.boot.clouds import Guest, azure_disc, azure_options, gce_options
from tests.boot.lab import Lab, command, stages, until
from tests.e2e.engine import run as tool
from tests.sandbox.test_clouds import request, spec_of


def disc(folder: Path, label: str, files: dict[str, bytes]) -> list[str]:
    """QEMU's options for a CD of these files."""
    inside = folder / "inside"
    inside.mkdir()
    for name, content in files.items():
        (inside / name).write_bytes(content)
    tool("genisoimage", "-quiet", "-output", str(folder / "disc"), "-volid", label, "-joliet", "-rock", str(inside))
    return ["-cdrom", str(folder / "disc")]


def options_of(cloud: str, user_data: bytes, folder: Path) -> Sequence[str]:
    if cloud == "gcp":
        return gce_options("")
    if cloud == "azure":
        return [*azure_options(""), *disc(folder, "rd_rdfe_stable", {name: text.encode() for name, text in azure_disc(user_data).items()})]
    return disc(folder, "cidata", {"user-data": user_data, "meta-data": b"instance-id: i-of-nobody\n"})


class Machine:
    """A virtual machine with a runner for the world's GitHub, of a launch job that this test only plays."""

    def __init__(self, lab: Lab, cloud: str, folder: Path, launch_job: LaunchJob) -> None:
        spec = replace(spec_of(lab.world, "machine", launch_job=launch_job, flags={"idle-timeout": "300"}), cloud=cloud)
        user_data = bootstrap.user_data(spec, request(lab.world), 65536)
        lab.service.guest = Guest("machine", user_data)
        self._log = folder / "console"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen([*command(lab.image, options_of(cloud, user_data, folder))], stdout=out, stderr=subprocess.STDOUT)

    def console(self) -> str:
        return self._log.read_text("utf-8", "replace").replace("\r", "")


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    made: list[Machine] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize(("cloud", "release"), [("gcp", "bullseye"), ("azure", "trixie"), ("kubernetes", "bullseye")], indirect=["release"])
def test_a_job_is_taken_and_runs_again(cloud: str, lab: Lab, tmp_path: Path, machines: list[Machine]) -> None:
    """By the cloud's own notice; where there is none, by the power button."""
    forge = lab.world.github.forge
    run = forge.queue_run()

    def launching(job: Job) -> str:
        if job.attempt > 1:
            return "failure"
        machines.append(Machine(lab, cloud, tmp_path, LaunchJob(run_id=run.id, id=job.id, name=job.name)))
        until(lambda: "online" in stages(machines[0].console()), "the machine", 240, machines[0].console)
        return "success"

    forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    train = forge.add_job(run, "train", ["train"], 0, "sleep 100", needs=["launch"])
    forge.begin(run)
    until(lambda: machines, "the launch", 10, str)
    (machine,) = machines
    until(lambda: "job-started" in stages(machine.console()), "the job", 300, machine.console)
    if cloud != "kubernetes":
        lab.world.metadata.notice("machine", 30)
    else:
        machine.process.terminate()
    until(lambda: run.attempt == 2, "the restart", 60, machine.console)
    machine.process.wait(120)
    assert train.conclusion == "failure"
    assert machine.process.returncode == 0
    assert lab.world.left() == []
    if cloud == "azure":
        assert any("Ready" in told for told in lab.service.ready), lab.service.ready
        assert lab.world.metadata.fate("machine").acknowledged == ["event-machine"]
