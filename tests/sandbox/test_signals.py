"""What may send the agent a signal, or take its machine from under it: for each, how often the run
is tried, on how many machines, and what people are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from runner_action.agent.reasons import Reason
from runner_action.sandbox.forges.jobs import Run
from runner_action.sandbox.world import World
from tests.sandbox import test_clouds
from tests.sandbox.conftest import Launch, all_gone, busy, job_of, training, until
from tests.sandbox.test_clouds import Booted
from tests.sandbox.test_lives import only_machine, ran_again

pytestmark = pytest.mark.sandbox
UNIT = "cml-runner.service"
REFUSED = f"Operation refused, unit {UNIT} may be requested by dependency only"
MAIN = f"$(systemctl show --property=MainPID --value {UNIT})"
RUNNER = "$(cut -d ' ' -f 4 /proc/$PPID/stat) $PPID"
LOOK = "cml-runner-watchdog.service"
KILL_A_LOOK = f"systemctl start --no-block {LOOK}; sleep 0.1; systemctl kill {LOOK}"
STOPPING = ("stop", "restart", "try-restart", "reload-or-restart")
PATIENT = ("--idle-timeout=4", "--first-job-timeout=120")
ONCE = "this reason allows only one restart"


@dataclass(frozen=True)
class Deed:
    """Something that each attempt of a job does. `told`: what stands on the last console;
    `mark`: in the job's own log; `well`: the run ends so."""

    command: str
    attempts: int
    told: str
    mark: str = ""
    well: bool = True


UNKIND = {
    # As needrestart does after an upgrade of a library.
    **{f"systemctl {verb}": Deed(f"systemctl {verb} {UNIT}", 1, "") for verb in STOPPING},
    "SIGTERM to the agent": Deed(f"kill -TERM {MAIN}", 1, "signal-ignored"),
    "SIGINT to the agent": Deed(f"kill -INT {MAIN}", 1, "signal-ignored"),
    "twice": Deed(f"kill -TERM {MAIN}; sleep 1; kill -TERM {MAIN}", 1, "signal-ignored"),
    "systemctl kill, main": Deed(f"systemctl kill --kill-who=main {UNIT}", 1, "signal-ignored"),
    # The runner says itself that its job has failed.
    "systemctl kill, all": Deed(f"systemctl kill {UNIT}", 1, Reason.CRASHED.text, well=False),
    "SIGKILL to the runner": Deed(f"kill -KILL {RUNNER}", 2, ONCE, well=False),
    "SIGTERM to the watchdog": Deed(KILL_A_LOOK, 1, ""),
    "poweroff": Deed("poweroff", 2, ONCE, Reason.SHUT_DOWN.text, well=False),
    "shutdown": Deed("shutdown -h now", 2, ONCE, Reason.SHUT_DOWN.text, well=False),
    "reboot": Deed("systemctl reboot", 2, ONCE, Reason.SHUT_DOWN.text, well=False),
}


def over(world: World, run: Run) -> bool:
    """The forge is asked, as only then it counts how long it has not heard of a runner."""
    world.github.forge.run(run.id)
    return run.done and not world.ec2.alive() and not world.processes()


@pytest.mark.parametrize("deed", UNKIND.values(), ids=UNKIND)
def test_a_job_that_does_this_each_time(deed: Deed, world: World, launch: Launch) -> None:
    world.github.forge.lost_after = 8
    lasting = 2 if deed.attempts == 1 else 30
    command = f"{deed.command} || true; sleep {lasting}"
    run = training(world, launch, *PATIENT, lasting=False, command=command)
    until(lambda: over(world, run), "the end of it all", 240)
    jobs = [job for job in run.all_jobs if job.name == "train"]
    console = world.machines.console(list(world.machines.living)[-1])
    assert (len(jobs), len(world.machines.living)) == (deed.attempts, deed.attempts), console
    assert deed.told in console
    assert "being taken away" not in console, "the cloud has nothing to do with it"
    assert (run.conclusion == "success") is deed.well
    marks = [text for title, text in jobs[-1].notes if title == "cml-runner"]
    facts = f"(runner {jobs[-1].runner_name}, attempt 2, not restarted: {ONCE})"
    assert marks == ([f"interrupted: {deed.mark} {facts}"] if deed.mark else [])


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_systemd_says_to_who_stops_the_unit(verb: str, world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    told = world.folder / "told"
    command = f"systemctl {verb} {UNIT} > {told} 2>&1; echo code $? >> {told}"
    job = world.github.forge.queue_job(["cml"], 0, command)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    assert REFUSED in told.read_text()
    assert "code 4" in told.read_text()
    all_gone(world)


def test_a_unit_that_is_stopped_all_the_same_is_told_as_that(world: World, launch: Launch) -> None:
    """Whoever writes into the unit may stop it."""
    file = f"$(dirname $(command -v systemctl))/../../etc/systemd/system/{UNIT}"
    command = f"sed -i /RefuseManualStop/d {file}; systemctl stop --no-block {UNIT}; sleep 20"
    run = training(world, launch, *PATIENT, lasting=False, command=command)
    until(lambda: over(world, run), "the end of it all", 240)
    assert run.attempt == len(world.machines.living) == 2
    jobs = [job for job in run.all_jobs if job.name == "train"]
    assert [Reason.STOPPED.text in str(job.notes) for job in jobs] == [True, True]


def test_a_machine_switched_off_without_a_notice_is_replaced(world: World, launch: Launch) -> None:
    run = training(world, launch, *PATIENT)
    busy(world, run)
    instance = only_machine(world)
    world.machines.end(instance)
    ran_again(world, run)
    first = job_of(run, "train", 1)
    assert first
    mark = f"interrupted: {Reason.SHUT_DOWN.text} (runner {first.runner_name}, attempt 1)"
    assert mark in str(first.notes)
    all_gone(world)


@pytest.fixture
def unbooted() -> Iterator[World]:
    with World(boots=False) as made:
        yield made


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
@pytest.mark.parametrize("notice", ["before", "with it", "none"])
def test_the_power_button_and_the_notice(cloud: str, notice: str, unbooted: World) -> None:
    """Google presses the button as it gives the notice, and the listener may have missed it; what
    each cloud's service says is looked at once more."""
    world, machines = unbooted, list[Booted]()
    run = test_clouds.training(world, cloud, machines)
    until(lambda: machines and machines[0].said("job-started"), "the job", 40)
    if notice == "before":
        world.metadata.notice(f"{cloud}-1", 30)
        until(lambda: machines[0].said("leaving"), "the agent to hear of it")
    elif notice == "with it":
        threading.Timer(0.2, world.metadata.notice, (f"{cloud}-1", 30)).start()
    machines[0].process.terminate()
    until(lambda: run.attempt == 2, "the restart", 20)
    told = (machines[0].said("leaving") or {})["why"]
    assert str(told).startswith(Reason.SHUT_DOWN.text if notice == "none" else Reason.TAKEN.text)
    until(lambda: run.done, "the second attempt", 40)
    for machine in machines:
        machine.process.wait(30)
