"""A machine of no cloud that cloud-init knows: its user data comes on a disc, and the power
button is its only notice. No launch makes such a machine; what one would have given is made
here, with the agent of a cloud that sends a signal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner_action.bootstrap import fitting
from runner_action.model import LaunchJob
from runner_action.sandbox.forges.jobs import Job
from tests.boot.clouds import Guest
from tests.boot.lab import Lab, command, disc, stages, until
from tests.sandbox.test_clouds import request, spec_of


class Machine:
    """A virtual machine with a runner for the world's GitHub, of a launch job that this test
    only plays."""

    def __init__(self, lab: Lab, folder: Path, launch_job: LaunchJob) -> None:
        spec = replace(
            spec_of(lab.world, "machine", launch_job=launch_job, flags={"idle-timeout": "300"}),
            cloud="kubernetes",
        )
        user_data = fitting.user_data(spec, request(lab.world), 65536)
        lab.service.guest = Guest("machine", user_data)
        options = disc(
            folder, "cidata", {"user-data": user_data, "meta-data": b"instance-id: i-of-nobody\n"}
        )
        self._log = folder / "console"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                command(lab.image, options), stdout=out, stderr=subprocess.STDOUT
            )

    def console(self) -> str:
        return self._log.read_text("utf-8", "replace").replace("\r", "")


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    made: list[Machine] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize("release", ["bullseye"], indirect=True)
def test_a_job_is_taken_and_runs_again(lab: Lab, tmp_path: Path, machines: list[Machine]) -> None:
    forge = lab.world.github.forge
    run = forge.queue_run()

    def launching(job: Job) -> str:
        if job.attempt > 1:
            return "failure"
        machines.append(Machine(lab, tmp_path, LaunchJob(run_id=run.id, id=job.id, name=job.name)))
        until(
            lambda: "online" in stages(machines[0].console()),
            "the machine",
            240,
            machines[0].console,
        )
        return "success"

    forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    train = forge.add_job(run, "train", ["train"], 0, "sleep 100", needs=["launch"])
    forge.begin(run)
    until(lambda: machines, "the launch", 10, str)
    (machine,) = machines
    until(lambda: "job-started" in stages(machine.console()), "the job", 300, machine.console)
    machine.process.terminate()
    until(lambda: run.attempt == 2, "the restart", 60, machine.console)
    machine.process.wait(120)
    assert train.conclusion == "failure"
    assert machine.process.returncode == 0
    assert lab.world.left() == []
