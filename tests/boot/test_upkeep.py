"""What a distribution does on its own, and what a job does to the machine as root: the job goes
on, or is told the truth."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from runner_action.agent.reasons import Reason
from runner_action.sandbox.forges.jobs import Job, Run
from tests.boot.lab import ONLINE, Lab, until
from tests.boot.test_ec2 import found, probe
from tests.sandbox.conftest import Launcher

BOTH = pytest.mark.parametrize("release", ["trixie", "bullseye"], indirect=True)
PACKAGE = """mkdir -p /tmp/{name}/DEBIAN
printf 'Package: {name}\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <n@example.com>\\nDescription: none\\n' > /tmp/{name}/DEBIAN/control
dpkg-deb --build /tmp/{name} /tmp/{name}.deb
"""  # noqa: E501
"""A package that is on no server."""
LOCK = """python3 -c '
import fcntl, time
with open("/var/lib/dpkg/lock-frontend", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    open("/tmp/{name}.locked", "w").close()
    time.sleep(25)' >/dev/null 2>&1 &
until [ -e /tmp/{name}.locked ]; do sleep 0.5; done
"""
"""As dpkg holds it, and another apt-get."""
UPGRADE = """agent=$(systemctl show --property=MainPID --value cml-runner.service)
library=$(sudo grep -o '/[^ ]*/libcrypto[^ ]*' /proc/$agent/maps | head -n 1)
sudo cp $library $library.new
sudo mv $library.new $library
ours="$agent is cml-runner.service|$agent uses "
echo "::notice title=seen::$(sudo needrestart -v -l -r l 2>&1 | grep -Ec "^.main. #($ours)")"
sudo apt-get install -y /tmp/upgraded.deb > /tmp/apt 2>&1
sleep 10
"""
"""A library that the agent uses is replaced as dpkg does it; needrestart is run by apt's own
hook."""


def launched(lab: Lab, folder: Path, commands: str, *argv: str) -> tuple[Run, Job]:
    """A run whose first attempt launches a machine for a job of these commands; that it is asked
    for again is all of the second."""
    world = lab.world
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        if job.attempt > 1:
            return "failure"
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launcher = Launcher(
            world,
            folder,
            "--labels=cml",
            "--idle-timeout=5",
            "--first-job-timeout=300",
            *argv,
            **environ,
        )
        return "failure" if launcher.wait(ONLINE) else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    train = world.forge.add_job(run, "train", ["cml"], 0, commands, needs=["launch"])
    world.forge.begin(run)
    return run, train


@BOTH
def test_a_job_that_upgrades_a_library_of_the_agent_goes_on(lab: Lab, tmp_path: Path) -> None:
    """needrestart restarts what uses it, without a question: on Ubuntu since 24.04, here by its
    configuration."""
    told = probe(apt="cat /tmp/apt", state="systemctl is-active cml-runner.service")
    run, job = launched(lab, tmp_path, f"set -e\n{PACKAGE.format(name='upgraded')}{UPGRADE}{told}")
    until(lambda: run.done, "the job", 600, lab.console)
    until(lambda: not lab.world.ec2.alive(), "the end", 180, lab.console)
    notes = found(job)
    assert (job.conclusion, run.attempt) == ("success", 1), f"{notes}\n{lab.console()}"
    assert int(notes["seen"]) > 0, "needrestart found the agent, by its process, and its unit"
    assert "refused by systemd: cml-runner.service" in " ".join(notes["apt"].split())
    assert "taken away" not in lab.console()
    assert notes["state"] == "active"
    assert lab.world.left() == []


@BOTH
def test_apt_waits_for_another_apt_and_nothing_else_is_installed(lab: Lab, tmp_path: Path) -> None:
    script = (
        f"#!/bin/sh\nset -e\n{PACKAGE.format(name='first')}{LOCK.format(name='first')}apt-get"
        " install -y /tmp/first.deb\n"
    )
    timers = "apt-daily.timer apt-daily-upgrade.timer"
    looks = probe(
        installed="dpkg-query --show first second",
        enabled=f"systemctl is-enabled {timers} unattended-upgrades.service",
        active=f"systemctl is-active {timers} apt-daily.service apt-daily-upgrade.service",
    )
    again = PACKAGE.format(name="second") + LOCK.format(name="second").replace(
        "python3", "sudo python3"
    )
    given = f"--cloud-startup-script={base64.b64encode(script.encode()).decode()}"
    run, job = launched(
        lab, tmp_path, f"set -e\n{again}sudo apt-get install -y /tmp/second.deb\n{looks}", given
    )
    until(lambda: run.done, "the job", 900, lab.console)
    until(lambda: not lab.world.ec2.alive(), "the end", 180, lab.console)
    notes = found(job)
    assert job.conclusion == "success", f"{notes}\n{lab.console()}"
    assert notes["installed"].split() == ["first", "1", "second", "1"]
    assert set(notes["enabled"].split()) == {"masked-runtime"}
    assert set(notes["active"].split()) == {"inactive"}
    assert lab.world.left() == []


@BOTH
def test_a_signal_is_not_the_machines_end_and_a_poweroff_is_told_as_one(
    lab: Lab, tmp_path: Path
) -> None:
    """What systemd says to an agent that asks, by its own words, also while it boots."""
    kill = "sudo systemctl kill --kill-who=main cml-runner.service"
    refused = "sudo systemctl {verb} cml-runner.service 2>&1 && echo done"
    stop = probe(stop=refused.format(verb="stop"), restart=refused.format(verb="restart"))
    run, job = launched(
        lab, tmp_path, f"{kill}\n{stop}\nsleep 5\nsudo systemctl poweroff\nsleep 300"
    )
    until(lambda: run.attempt == 2, "the restart", 600, lab.console)
    until(lambda: not lab.world.ec2.alive(), "the end", 180, lab.console)
    console, notes = lab.console(), found(job)
    assert '"stage": "signal-ignored"' in console
    assert console.index('"stage": "signal-ignored"') < console.index(Reason.SHUT_DOWN.text)
    assert [
        notes[verb].count("may be requested by dependency only") for verb in ("stop", "restart")
    ] == [1, 1]
    assert (
        f"interrupted: {Reason.SHUT_DOWN.text} (runner {job.runner_name}, attempt 1)"
        in notes["cml-runner"]
    )
    assert "taken away" not in console
    assert console.count('"stage": "restart"') == 1
    assert lab.world.left() == []
