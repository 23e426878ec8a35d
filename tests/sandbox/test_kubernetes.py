"""Whole lives in a cluster: the real launcher, guard and agent as processes as a kubelet would
run them, an API server with its controllers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.sandbox.kubernetes.admission import Injector
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import World
from tests.contracts.kubernetes_types import Judge
from tests.sandbox.conftest import Launch, Launcher, busy, job_of, training, until

CANARY = "canary-kubernetes-token"


@pytest.fixture
def world() -> Iterator[World]:
    with World(cloud="kubernetes", timer_factor=0.02) as made:
        assert made.kubernetes
        judge = Judge(made.kubernetes)
        yield made
        assert judge.problems == []


def gone(world: World, seconds: float = 40) -> None:
    until(lambda: not world.left(), f"nothing to be left, but there is {world.left()}", seconds)
    assert world.processes() == []


def home(world: World, number: str = "") -> Path:
    (only,) = [number] if number else list(world.machines.living)
    return world.machines.folder / only / "volumes/home"


def online(world: World, launch: Launch, *argv: str, **environ: str) -> Launcher:
    launcher = launch(
        "--labels=train", "--idle-timeout=1", "--first-job-timeout=60", *argv, **environ
    )
    assert launcher.wait() == 0, launcher.told
    return launcher


def test_a_pod_becomes_a_runner_works_and_is_gone(world: World, launch: Launch) -> None:
    launcher = online(world, launch)
    assert launcher.outputs["instanceIp"].startswith("10.0.0.")
    assert world.kubernetes
    assert world.kubernetes.shelf.of("secrets") == [], "it was there for the start only"
    job = world.forge.queue_job(["train"], 0.2)
    until(lambda: job.conclusion == "success", "the job")
    gone(world)
    (pod,) = world.kubernetes.shelf.of("pods") or [{"status": {"phase": "Succeeded"}}]
    assert pod["status"]["phase"] == "Succeeded"
    said = [
        launcher.summary,
        str(launcher.outputs),
        world.machines.console(next(iter(world.machines.living))),
    ]
    said.append(
        "".join(line for line in launcher.told.splitlines() if not line.startswith("::add-mask::"))
    )
    assert not any("canary" in text for text in said)


def test_a_job_finds_no_secret_of_the_launch(world: World, launch: Launch) -> None:
    """It is the same user as the agent: what is not to be read must not be there."""
    online(world, launch, "--cloud-startup-script=#!/bin/sh\necho canary-startup\n", "--single")
    look = f"""
    home={home(world)}
    found={world.folder}/found
    grep -rl canary $home --include=* 2>/dev/null |
        grep -v -e /_work/ -e /_temp/ -e runner.log | head -3 > $found
    agent=$(pgrep -f 'agent[.]pyz run' | tail -n 1)
    [ -n "$agent" ] || echo no agent >> $found
    (cat /proc/$agent/environ | tr '\\0' '\\n' | grep canary) >> $found 2>&1 &&
        echo environ >> $found
    ls $home/spec.json $home/startup.sh $home/heartbeat >> $found 2>/dev/null
    ls $home/../told/* >> $found 2>/dev/null
    env | grep canary >> $found
    true"""
    job = world.forge.queue_job(["train"], 0.1, look)
    until(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    assert (world.folder / "found").read_text() == ""
    gone(world)


@pytest.mark.parametrize("how", ["drain", "spot"])
def test_a_pod_that_is_taken_restarts_its_job(world: World, launch: Launch, how: str) -> None:
    run = training(
        world,
        launch,
        *(["--cloud-spot"] if how == "spot" else []),
        "--idle-timeout=2",
        "--first-job-timeout=60",
    )
    busy(world, run)
    first = next(iter(world.machines.living))
    world.interrupt(first, 15 if how == "spot" else 60)
    until(
        lambda: (job := job_of(run, "train", 2)) is not None and job.conclusion == "success",
        "the second try",
        60,
    )
    assert "the machine is being taken away" in world.machines.console(first)
    gone(world)


def processes(world: World, machine: str, word: str) -> list[int]:
    """Of a pod's container, by what its command says."""
    supervisor = world.machines.living[machine].process.pid
    return [
        pid
        for pid in descendants(supervisor)
        if f"agent.pyz\0{word}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_when_the_agent_is_killed_the_guard_takes_the_runner_off_the_list(
    world: World, launch: Launch
) -> None:
    """As when the kernel ends all of a container that is over its memory."""
    online(world, launch)
    (machine,) = world.machines.living
    assert world.forge.seats()
    agents = processes(world, machine, "run")
    assert len(agents) == 2, "process 1, and the agent"
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    gone(world)
    log = (world.machines.folder / machine / "guard.log").read_text()
    assert "deregistered" in log


def test_without_its_guard_a_pod_ends(world: World, launch: Launch) -> None:
    """Nobody else would see that the agent is silent. A guard that is started again knows
    nothing; who takes the runner off the list then is a launch that sweeps."""
    online(world, launch)
    (machine,) = world.machines.living
    (guard,) = processes(world, machine, "guard")
    os.kill(guard, signal.SIGKILL)
    until(lambda: "liveness probe failed" in world.machines.console(machine), "the probe", 60)
    until(lambda: not world.machines.runs(machine), "the pod to end", 60)
    until(
        lambda: not [one for one in world.left() if "runner" not in one.split()[0]],
        "all but the runner to be gone",
        30,
    )
    assert "the guard was restarted" in (world.machines.folder / machine / "guard.log").read_text()


def test_one_slow_exec_of_the_probe_ends_no_job(world: World, launch: Launch) -> None:
    """Under load a program starts late in a healthy container."""
    online(world, launch)
    (machine,) = world.machines.living
    job = world.forge.queue_job(["train"], 3)
    until(lambda: job.status == "in_progress", "the job to run")
    slow = world.machines.folder / machine / "slow-exec"
    slow.touch()
    until(lambda: job.status == "completed", "the job to end")
    assert not slow.exists(), "a probe was slow"
    assert job.conclusion == "success"
    gone(world)


def test_a_container_that_a_webhook_added_does_not_keep_the_pod(
    world: World, launch: Launch
) -> None:
    """It never ends by itself, and nobody but the pod is there to see that."""
    assert world.kubernetes
    mesh = Injector(key="mesh.example/inject")
    world.kubernetes.admission.append(mesh)
    launcher = online(world, launch, "--idle-timeout=never")
    (machine,) = world.machines.living
    assert mesh.injected
    launcher.kill(signal.SIGKILL)
    for pid in processes(world, machine, "run")[-1:]:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not world.machines.runs(machine), "the pod to end", 60)
    pods = world.kubernetes.shelf
    until(lambda: "Evicted" in str(pods.of("pods")), "the kubelet to report it", 10)
    gone(world)


def test_a_pod_that_its_queue_takes_back_restarts_its_job_and_does_not_come_back(
    world: World, launch: Launch
) -> None:
    """It would wait for a Secret that is gone."""
    assert world.kubernetes
    queues = world.kubernetes.control.queues
    queues.room["gpus"] = 1
    run = training(
        world,
        launch,
        "--cloud-kubernetes-queue=gpus",
        "--idle-timeout=2",
        "--first-job-timeout=60",
    )
    busy(world, run)
    with world.kubernetes.shelf.changed:
        (job,) = world.kubernetes.shelf.of("jobs")
        world.kubernetes.shelf.put("jobs", queues.preempt(job))
    until(lambda: job_of(run, "train", 2) is not None, "the second attempt", 60)
    queues.room["gpus"] = 2
    until(
        lambda: (again := job_of(run, "train", 2)) is not None and again.conclusion == "success",
        "its end",
        60,
    )
    gone(world)


LOADED = "import time:"


@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_nothing_is_loaded_once_there_was_a_job(forge: str, tmp_path: Path) -> None:
    """What Python loads late is what somebody may have put there meanwhile. Told by Python
    itself, of a life with a lookup of a host, a restart, and an end."""
    telling = tmp_path / "python3"
    telling.write_text(f'#!/bin/sh\nexec {sys.executable} -X importtime "$@"\n')
    telling.chmod(0o755)
    with World(forge, "kubernetes", python=str(telling), timer_factor=0.02) as world:
        environ = {"PATH": os.environ["PATH"], **world.job_environ()}

        def launch(*argv: str, **more: str) -> Launcher:
            return Launcher(world, Path(world.folder), *argv, **{**environ, **more})

        run = training(world, launch, "--idle-timeout=2", "--first-job-timeout=60")
        busy(world, run)
        machine = next(iter(world.machines.living))
        logs = [world.machines.folder / machine / name for name in ("console.log", "guard.log")]
        before = [log.read_text() for log in logs]
        world.interrupt(machine, 60)
        until(lambda: not world.machines.runs(machine), "the pod to end", 60)
        for log, said in zip(logs, before, strict=True):
            assert LOADED in said, "it is told at all"
            late = [
                line
                for line in log.read_text()[len(said) :].splitlines()
                if line.startswith(LOADED)
            ]
            assert late == [], log.name
        assert '"stage": "restart"' in logs[0].read_text()
        until(lambda: not world.left(), "nothing to be left", 60)


def test_several_runners_by_one_job(world: World, launch: Launch) -> None:
    launcher = online(world, launch, "--count=3")
    names = {seat.name for seat in world.forge.seats()}
    assert len(names) == 3
    assert world.kubernetes
    assert world.kubernetes.asked.count("create batch/jobs") == 1
    assert all(name in launcher.told for name in names)
    for _ in range(3):
        world.forge.queue_job(["train"], 0.2)
    gone(world)


def test_gitlab_too(launch: Launch) -> None:
    """Whose runner is told its executor."""
    with World("gitlab", "kubernetes", timer_factor=0.02) as world:
        environ = {"PATH": os.environ["PATH"], **world.job_environ()}
        launcher = Launcher(
            world,
            Path(world.folder),
            "--labels=train",
            "--idle-timeout=1",
            "--first-job-timeout=60",
            **environ,
        )
        assert launcher.wait() == 0, launcher.told
        job = world.forge.queue_job(["train"], 0.2)
        until(lambda: job.conclusion == "success", "the job")
        gone(world)


def test_a_launch_that_is_cancelled_leaves_nothing(world: World, launch: Launch) -> None:
    launcher = launch("--labels=train", "--cloud-startup-script=#!/bin/sh\nsleep 60\n")
    until(lambda: world.machines.living, "the pod")
    launcher.kill()
    assert launcher.wait() == 143, launcher.told
    gone(world)


def test_a_launch_that_is_killed_leaves_a_runner_that_ends_itself(
    world: World, launch: Launch
) -> None:
    launcher = launch("--labels=train", "--first-job-timeout=3")
    until(lambda: world.machines.living, "the pod")
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    assert world.kubernetes
    gone(world, 60)
    until(
        lambda: not world.kubernetes or not world.kubernetes.shelf.of("secrets"),
        "the Secret to go with its Job",
        60,
    )


def test_sizes_that_no_node_has_are_passed_over_and_told(world: World, launch: Launch) -> None:
    launcher = online(
        world, launch, "--cloud-type=s+amd.com/gpu,s", "--cloud-kubernetes-schedule-timeout=5s"
    )
    assert "waits for a node: 0/2 nodes are available: " in launcher.told
    assert "Requesting 1 CPU, 1 GiB." in launcher.told
    world.forge.queue_job(["train"], 0.1)
    gone(world)


def test_an_image_that_is_not_there_ends_the_launch_at_once(world: World, launch: Launch) -> None:
    assert world.kubernetes
    world.kubernetes.broken_images["octo/none:1"] = (
        'failed to resolve reference "octo/none:1": not found'
    )
    launcher = launch("--cloud-image=octo/none:1")
    assert launcher.wait() == 6, launcher.told
    assert "octo/none:1" in launcher.told
    assert "not found" in launcher.told
    gone(world)


def test_a_checkout_starts_nobodys_image(world: World, launch: Launch) -> None:
    """In a job of this world `cloud-image` is a variable; empty is not given."""
    launcher = launch(CML_RUNNER_CLOUD_IMAGE="")
    assert launcher.wait() == 2, launcher.told
    assert "cloud-image is needed here" in launcher.told
    assert world.kubernetes
    assert [one for one in world.kubernetes.actions() if one.startswith("create")] == []
    gone(world)


def test_a_startup_script_that_fails_is_told_in_its_own_words(world: World, launch: Launch) -> None:
    launcher = launch("--cloud-startup-script=#!/bin/sh\necho no such package >&2\nexit 3\n")
    assert launcher.wait() == 6, launcher.told
    assert "no such package" in launcher.told
    gone(world)


def test_a_quota_and_a_missing_right_in_one_sentence(world: World, launch: Launch) -> None:
    assert world.kubernetes
    world.kubernetes.refuse_pods(
        'pods "x" is forbidden: exceeded quota: compute, requested: limits.cpu=8, used:'
        " limits.cpu=40, limited: limits.cpu=40"
    )
    quota = launch()
    assert quota.wait() == 4, quota.told
    assert "exceeded quota: compute" in quota.told
    world.kubernetes.refuse_pods("")
    world.kubernetes.denied.add("create secrets")
    denied = launch()
    assert denied.wait() == 4, denied.told
    assert "cml-runner permissions kubernetes" in denied.told
    gone(world)


def test_a_dry_run_asks_and_makes_nothing(world: World, launch: Launch) -> None:
    assert world.kubernetes
    world.kubernetes.nodes.append(Node("node-9"))
    launcher = launch("--dry-run", "--cloud-type=m,l", "--cloud-gpu=l4", "--cloud-spot=prefer")
    assert launcher.wait() == 0, launcher.told
    assert "nothing was created" in launcher.told + launcher.summary
    assert world.kubernetes.asked == ["list batch/jobs"]
