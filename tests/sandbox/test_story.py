"""The whole story in the embedded world: real launcher, real agent, real processes, real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import boto3
import pytest

from runner_action.runners import console
from runner_action.sandbox.clouds.aws.ec2 import ONLOOKER
from runner_action.sandbox.machine.image import ERROR
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import KEY, TOKEN, World
from tests import pythons
from tests.sandbox.conftest import Launch, all_gone, until

pytestmark = pytest.mark.sandbox


SIDE_BY_SIDE = ("agent-fetch", "equip", "equipped")
"""Stages that a machine may have, or have at any time before it registers."""


def stages(world: World) -> list[str]:
    told = [
        str(line["stage"])
        for instance in world.machines.living
        for line in console.entries(world.machines.console(instance))
    ]
    return [stage for stage in told if stage != "runner"]


def command_lines(pids: list[int]) -> str:
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return "\n".join(found)


def test_an_idle_runner_from_input_to_gone(world: World, launch: Launch) -> None:
    world.ec2.consistency.looks = 0  # or it would ask again
    launcher = launch("--labels=train,gpu", "--idle-timeout=4", CML_RUNNER_RESTART_TOKEN="")
    assert launcher.wait() == 0, launcher.told
    outputs = launcher.outputs
    assert outputs["runner-name"].startswith("cml-")
    assert (outputs["labels"], outputs["region"], outputs["reused"], outputs["instance-type"]) == (
        "train,gpu",
        "us-west-1",
        "false",
        "m6i.2xlarge",
    )
    assert outputs["instance-ip"] == outputs["instanceIp"] != ""
    assert json.loads(outputs["runners"])[0]["instance-id"] in world.machines.living
    assert '"instanceIp"' in launcher.told
    assert outputs["runner-name"] in launcher.summary

    assert Counter(world.ec2.actions()) == Counter(
        [
            "DescribeImages",
            "DescribeSubnets",
            "DescribeSecurityGroups",
            "DescribeSecurityGroups",
            "DescribeInstanceTypeOfferings",
            "DescribeInstances",
            "DescribeInstances",
            "DescribeLaunchTemplates",
            "CreateSecurityGroup",
            "CreateLaunchTemplate",
            "CreateFleet",
            "CreateFleet",
        ]
    ), (
        "a launch asks EC2 for each thing once, and its sweep for instances and whose template they"
        " are from; the first of all makes group and template"
    )

    job = world.github.forge.queue_job(["train"], seconds=0.5)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    assert (job.conclusion, job.runner_name) == ("success", outputs["runner-name"])
    all_gone(world)
    assert [stage for stage in stages(world) if stage not in SIDE_BY_SIDE] == [
        "agent",
        "downloaded",
        "configured",
        "online",
        "job-started",
        "job-finished",
        "leaving",
        "deregistered",
        "end",
    ]
    deletes = [status for method, _, status in world.github.requests if method == "DELETE"]
    assert deletes == [204]


def test_a_single_runner_registered_just_in_time(world: World, launch: Launch) -> None:
    launcher = launch("--single", "--no-retry", "--labels=once")
    assert launcher.wait() == 0, launcher.told
    assert not [path for _, path, _ in world.github.requests if path.endswith("registration-token")]
    first, second = world.github.forge.queue_job(["once"]), world.github.forge.queue_job(["once"])
    world.github.forge.wait(lambda: first.status == "completed", "the job")
    all_gone(world)
    assert (first.conclusion, second.status) == ("success", "queued")
    assert "its single job is done" in world.machines.console(next(iter(world.machines.living)))


def test_no_canary_shows_anywhere(world: World, launch: Launch) -> None:
    """Tokens are searched for in all that was said, written or started, during and after a life."""
    launcher = launch("--idle-timeout=4", "--log=debug")
    assert launcher.wait() == 0, launcher.told
    instance = next(iter(world.machines.living))
    root = world.machines.root(instance)
    environment = world.folder / "seen-by-the-job"
    job = world.github.forge.queue_job(
        ["cml"],
        seconds=0.1,
        command=f"env > {environment}; cat /proc/self/cmdline >> {environment}",
    )
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    argvs = command_lines(world.processes())
    assert "-m agent run" in argvs
    said = {
        "log": launcher.told.replace(f"::add-mask::{TOKEN}", ""),
        "outputs": json.dumps(launcher.outputs),
        "summary": launcher.summary,
        "console": world.machines.console(instance),
        "argv": argvs,
        "the job's environment": environment.read_text(),
        "calls": json.dumps(
            [
                {key: value for key, value in call.items() if key != "UserData"}
                for call in world.ec2.calls
            ]
        ),
    }
    for place, text in said.items():
        assert "canary" not in text, place
        assert KEY not in text, place
    holders = [
        path for path in root.rglob("*") if path.is_file() and b"canary" in path.read_bytes()
    ]
    assert [str(path.relative_to(root)) for path in holders] == ["var/lib/cml-runner/spec.json"], (
        "cloud-init's copies are wiped"
    )
    assert holders[0].stat().st_mode & 0o077 == 0
    all_gone(world)


# --- the list of CML's failures, for what this touches (reference/cml-behaviour.md, 8.7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_creation_leaves_nothing(number: int, world: World, launch: Launch) -> None:
    world.ec2.delays["CreateFleet"], world.ec2.consistency.looks = 2, 0
    launcher = launch()
    until(lambda: "CreateFleet" in world.ec2.actions(), "the request")
    launcher.kill(number)
    assert launcher.wait(20) == 128 + number, launcher.told
    assert "Deleted machine" in launcher.told
    all_gone(world)


def test_a_signal_while_waiting_for_the_runner_leaves_nothing(world: World, launch: Launch) -> None:
    launcher = launch("--single", "--cloud-startup-script=c2xlZXAgNjA=")  # sleep 60
    until(lambda: "startup-script" in stages(world), "the machine")
    launcher.kill()
    assert launcher.wait(20) == 143, launcher.told
    all_gone(world)


def test_a_launcher_killed_outright_leaves_a_machine_that_ends_itself(
    world: World, launch: Launch
) -> None:
    launcher = launch("--idle-timeout=4")
    until(lambda: world.machines.living, "the instance")
    launcher.kill(signal.SIGKILL)
    all_gone(world)
    assert "no job came" in world.machines.console(next(iter(world.machines.living)))


def test_a_machine_ended_by_the_cloud_leaves_in_order(world: World, launch: Launch) -> None:
    started = launch("--no-retry")
    assert started.wait() == 0, started.told
    instance = started.outputs["instance-id"]
    client = boto3.client(
        "ec2",
        region_name="us-west-1",
        endpoint_url=world.ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    client.terminate_instances(InstanceIds=[instance])
    all_gone(world)
    assert stages(world)[-3:] == ["leaving", "deregistered", "end"]
    assert "the machine was shut down without notice" in world.machines.console(instance)


def agent_of(world: World) -> int:
    supervisor = next(iter(world.machines.living.values())).process.pid
    return next(
        pid
        for pid in descendants(supervisor)
        if "-m agent run" in command_lines([pid]).replace("\0", " ")
    )


def test_a_killed_idle_agent_is_off_the_list_too(world: World, launch: Launch) -> None:
    started = launch()
    assert started.wait() == 0, started.told
    os.kill(agent_of(world), signal.SIGKILL)
    all_gone(world, 45)


OLDER = """if True:
    import dataclasses, os, pathlib, pickle
    file = pathlib.Path("heartbeat")
    beat = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(dataclasses.replace(beat, at=beat.at - 130)))
    os.utime(file, (0, 0))
"""


def test_a_hung_agent_is_ended_by_the_watchdog(world: World, launch: Launch) -> None:
    started = launch()
    assert started.wait() == 0, started.told
    until(lambda: "online" in stages(world), "the agent")
    agent = agent_of(world)
    home = world.machines.root(next(iter(world.machines.living))) / "var/lib/cml-runner"
    os.kill(agent, signal.SIGSTOP)
    subprocess.run([sys.executable, "-c", OLDER], cwd=home, check=True)
    all_gone(world, 45)
    assert "the agent is silent" in world.machines.console(next(iter(world.machines.living)))


def test_two_launches_with_one_label_get_two_machines(world: World, launch: Launch) -> None:
    patient = (
        "--idle-timeout=4",
        "--first-job-timeout=60",
    )  # the one waits while the other is slow
    one, two = launch(*patient), launch(*patient, GITHUB_JOB="other")
    assert (one.wait(), two.wait()) == (0, 0)
    assert one.outputs["runner-name"] != two.outputs["runner-name"]
    assert one.outputs["instance-id"] != two.outputs["instance-id"]
    jobs = [world.github.forge.queue_job(["cml"], seconds=1) for _ in range(2)]
    world.github.forge.wait(lambda: all(job.status == "completed" for job in jobs), "both jobs")
    assert len({job.runner_name for job in jobs}) == 2
    all_gone(world)


def test_each_launch_of_a_step_has_a_runner_of_its_own(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    """At once by the files that they share, later also without them."""
    shared = {"RUNNER_TEMP": str(tmp_path)} if world.kind == "github" else {}
    long = "--idle-timeout=30"
    launches = [launch(long, "--name=train", **shared), launch(long, **shared)]
    assert [one.wait() for one in launches] == [0, 0], [one.told for one in launches]
    launches.append(launch(long, "--single"))
    assert launches[-1].wait() == 0
    for output in ("runner-name", "label", "instance-id"):
        assert len({one.outputs[output] for one in launches}) == 3
    assert len(world.machines.living) == 3
    assert launches[0].outputs["runner-name"].startswith("train-")
    reused = launch(long, "--reuse", "--name=train")
    assert reused.wait() == 0
    assert reused.outputs["reused"] == "true"
    assert len(world.machines.living) == 3


def test_a_failing_startup_script_is_the_reason_that_is_told(world: World, launch: Launch) -> None:
    launcher = launch(
        "--cloud-startup-script=ZWNobyAibm8gZHJpdmVyIjsgZXhpdCAzCg=="
    )  # echo "no driver"; exit 3
    assert launcher.wait() == 6
    assert "startup script: exit code 3: no driver" in launcher.told
    all_gone(world)


def test_a_stock_image_has_docker_before_its_runner_is_online(world: World, launch: Launch) -> None:
    launcher = launch("--idle-timeout=5")
    assert launcher.wait() == 0
    root = world.machines.root(launcher.outputs["instance-id"])
    assert (root / "apt-get").read_text().splitlines()[1].split()[-3:] == [
        "docker.io",
        "apparmor",
        "libicu72",
    ]
    assert (root / "usr/bin/docker").exists()


def test_without_docker_nothing_is_installed(world: World, launch: Launch) -> None:
    launcher = launch("--idle-timeout=5", "--docker=none")
    assert launcher.wait() == 0
    root = world.machines.root(launcher.outputs["instance-id"])
    assert not (root / "apt-get").exists()
    assert not (root / "usr/bin/docker").exists()


def test_docker_that_cannot_be_installed_ends_the_launch_in_apt_s_words(
    world: World, launch: Launch
) -> None:
    world.machines.folder.mkdir(parents=True, exist_ok=True)
    (world.machines.folder / ERROR).write_text("E: Unable to fetch some archives\n")
    launcher = launch("--start-timeout=30")
    assert launcher.wait() == 6
    assert "Docker does not work: exit code 1: E: Unable to fetch some archives" in launcher.told
    all_gone(world)


def test_an_archive_that_fails_for_a_while_ends_nothing(world: World, launch: Launch) -> None:
    world.machines.folder.mkdir(parents=True, exist_ok=True)
    error = world.machines.folder / ERROR
    error.write_text("E: Unable to fetch some archives\n")
    launcher = launch("--idle-timeout=5")
    until(lambda: "waiting" in stages(world), "the first attempt")
    error.unlink()
    assert launcher.wait() == 0


def test_a_runner_program_with_a_wrong_checksum_never_runs(world: World, launch: Launch) -> None:
    archive = world.github._archive
    object.__setattr__(archive, "sha256", "0" * 64)
    launcher = launch()
    assert launcher.wait() == 6
    assert "expected 0000000000" in launcher.told
    assert world.github.forge.ever == []
    all_gone(world)


def test_a_busy_runner_outlives_its_idle_timeout(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    job = world.github.forge.queue_job(["cml"], seconds=6)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    all_gone(world)


def test_no_capacity_in_the_first_zone(world: World, launch: Launch) -> None:
    world.ec2.refuse(
        lambda form: form["Action"] == "RunInstances",
        "InsufficientInstanceCapacity",
        500,
        "No capacity.",
        times=1,
    )
    launcher = launch("--idle-timeout=4")
    assert launcher.wait() == 0, launcher.told
    assert "on-demand in us-west-1a: InsufficientInstanceCapacity" in launcher.summary
    assert launcher.outputs["zone"] == "us-west-1b"
    all_gone(world)


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_the_machine_may_have_another_python(version: str, launch: Launch, world: World) -> None:
    found = pythons.interpreter(version)
    if found is None:
        pytest.skip(f"SKIPPED LOUDLY: there is no Python {version} here")
    world.machines.python = found
    assert launch("--single").wait() == 0
    job = world.github.forge.queue_job(["cml"])
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    all_gone(world)


# --- the demo


@pytest.mark.parametrize(
    "argv", [[], ["--single"], ["--forge", "gitlab"]], ids=["interrupted", "single", "gitlab"]
)
def test_the_demo_checks_its_own_end(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner_action", "sandbox", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no runner, no instance and no process is left" in " ".join(done.stdout.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["-m agent run", "Runner.Listener"])
def test_the_demo_killed_at_any_moment_leaves_no_process(number: int, moment: str) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "runner_action", "sandbox"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: moment in command_lines(list(descendants(demo.pid))), moment, 30)
    below = list(descendants(demo.pid))
    demo.send_signal(number)
    demo.wait(20)
    until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in below),
        "all its processes to end",
        15,
    )
