"""Whole lives in the embedded world: interrupted, restarted, killed, out of time, and always
gone. Real launcher, agent and runner."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from pathlib import Path

import pytest

from runner_action.agent.restart import LAUNCH_JOB
from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job, Run
from runner_action.sandbox.machine.machine import kill_descendants
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, all_gone, busy, job_of, training, until
from tests.sandbox.test_story import agent_of, stages

pytestmark = pytest.mark.sandbox


def only_machine(world: World) -> str:
    (instance,) = world.machines.living
    return instance


def said(world: World, instance: str, stage: str) -> dict[str, object]:
    """The first line of that stage; waits for it."""
    until(
        lambda: any(
            line["stage"] == stage for line in console.entries(world.machines.console(instance))
        ),
        f"{instance} to say {stage}",
        40,
    )
    return dict(
        next(
            line
            for line in console.entries(world.machines.console(instance))
            if line["stage"] == stage
        )
    )


def ran_again(world: World, run: Run) -> None:
    """The second attempt launched a machine of its own, and its job ran there to its end."""
    until(lambda: run.attempt == 2 and run.done, "the second attempt", 60)
    first, second = job_of(run, "train", 1), job_of(run, "train", 2)
    assert first
    assert second
    assert first.conclusion in ("failure", "cancelled")
    assert second.conclusion == "success"
    assert first.runner_name != second.runner_name
    assert len(world.machines.living) == 2
    assert job_of(run, "launch", 2), "the launch job ran again, so that there is a machine"


def test_a_spot_notice_while_busy_and_the_job_runs_again_on_a_new_machine(
    world: World, launch: Launch
) -> None:
    run = training(world, launch, "--idle-timeout=4", "--cloud-spot")
    first = busy(world, run)
    instance = only_machine(world)
    world.metadata.notice(instance, 120)
    given = time.time()
    restarted = said(world, instance, "restart")
    assert restarted["outcome"] == f"{LAUNCH_JOB}, attempt 2"
    notice = float(str(said(world, instance, "notice")["t"]))
    assert float(str(restarted["t"])) - notice < 6
    assert notice - given < 5
    ran_again(world, run)
    told = [text for title, text in first.notes if title == "cml-runner"]
    assert told == [
        f"interrupted: the machine is being taken away (runner {first.runner_name}, attempt 1)"
    ]
    assert first.conclusion == "cancelled", "nothing else ran in the run"
    all_gone(world)


def test_other_jobs_of_the_run_go_on(world: World, launch: Launch) -> None:
    """The run is restarted as soon as they have ended, if the machine is still there."""
    run = world.github.forge.queue_run()

    def slow(job: Job) -> str:
        time.sleep(8)
        return "success"

    world.github.forge.add_job(run, "elsewhere", ["ubuntu-latest"], hosted=slow)
    assert launch("--idle-timeout=4", "--labels=train", GITHUB_RUN_ID=str(run.id)).wait() == 0
    world.github.forge.add_job(run, "train", ["train"], 60)
    world.github.forge.begin(run)
    busy(world, run)
    world.metadata.notice(only_machine(world), 120)
    until(lambda: run.attempt == 2, "the second attempt", 40)
    elsewhere = job_of(run, "elsewhere", 1)
    assert elsewhere
    assert elsewhere.conclusion == "success"
    assert not [path for _, path, *_ in world.github.requests if path.endswith("cancel")]
    mark = f"cml-restart-{run.id}"
    until(lambda: world.github.forge.by_name(mark) is None, "the mark, which is taken back, to go")


def test_a_run_is_not_restarted_at_the_cost_of_another(world: World, launch: Launch) -> None:
    """The other one waits in the same concurrency group, and begins when this one has ended."""
    run = training(world, launch, "--idle-timeout=4", "--cloud-spot")
    run.group, run.cancels = "main", True
    busy(world, run)
    other = world.forge.queue_run("main")
    waits = world.forge.add_job(other, "train", ["another"])
    world.forge.begin(other)
    assert other.pending
    instance = only_machine(world)
    world.metadata.notice(instance, 120)
    outcome = str(said(world, instance, "restart")["outcome"])
    assert outcome.startswith(f"not restarted: run {other.id} is in the same concurrency group")
    assert (run.attempt, run.conclusion) == (1, "cancelled")
    assert (waits.status, waits.cancelled) == ("queued", False)
    all_gone(world)


def test_the_last_machine_of_a_run_restarts_what_another_has_left(
    world: World, launch: Launch
) -> None:
    """One of two machines is taken while the other works for longer than the notice. Nothing that
    succeeds is repeated, and nothing is launched again."""
    run = world.forge.queue_run()

    def launching(job: Job) -> str:
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        launched = launch("--count=2", "--labels=train", "--idle-timeout=4", **environ)
        return "failure" if launched.wait() else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    first = f"mkdir {world.folder}/first 2>/dev/null && sleep 60; true"
    world.forge.add_job(run, "lost", ["train"], 0.2, first, needs=["launch"])
    world.forge.add_job(run, "long", ["train"], 12, needs=["launch"])
    world.forge.begin(run)
    until(lambda: len([job for job in run.jobs if job.runner_name]) == 3, "both jobs to run", 60)
    (machine,) = (
        instance
        for instance in world.machines.living
        if f'"name": "{run.jobs[1].runner_name}"' in world.machines.console(instance)
    )
    said(world, machine, "job-started")
    world.metadata.notice(machine, 6)
    until(lambda: run.attempt == 2 and run.done, "the second attempt", 60)
    outcome = str(said(world, machine, "restart")["outcome"])
    assert outcome.endswith("go on; the last machine of the run restarts it"), outcome
    lost, long = ([job for job in run.all_jobs if job.name == name] for name in ("lost", "long"))
    assert [job.conclusion for job in long] == ["success"]
    assert [job.conclusion for job in lost] == ["failure", "success"]
    assert lost[1].runner_name == long[0].runner_name
    assert len(world.machines.living) == 2
    all_gone(world)


def test_the_restart_limit_is_kept_and_told(world: World, launch: Launch) -> None:
    run = training(world, launch, "--idle-timeout=4", "--restart-limit=1", command="sleep 60")
    busy(world, run)
    world.metadata.notice(only_machine(world), 120)
    until(lambda: run.attempt == 2 and len(world.machines.living) == 2, "the second machine", 60)
    second = list(world.machines.living)[1]
    busy(world, run, 2)
    said(world, second, "job-started")
    world.metadata.notice(second, 120)
    assert said(world, second, "restart")["outcome"] == "not restarted: restart-limit 1 is reached"
    all_gone(world)
    assert run.attempt == 2
    job = job_of(run, "train", 2)
    assert job
    assert "attempt 2, not restarted: restart-limit 1 is reached" in str(job.notes), (
        "people find it in the job's own log"
    )


def test_a_machine_taken_before_its_job_came_is_replaced(world: World, launch: Launch) -> None:
    """The job would wait for a day for a machine that is gone."""
    run = training(world, launch, "--idle-timeout=60", lasting=False)
    run.jobs[1].labels |= {"nobody-has-this"}
    until(lambda: world.machines.living, "the machine", 40)
    instance = only_machine(world)
    said(world, instance, "online")
    until(
        lambda: (job := job_of(run, "train", 1)) and job.status == "queued", "the job to wait", 40
    )
    world.metadata.notice(instance, 120)
    assert said(world, instance, "restart")["outcome"] == f"{LAUNCH_JOB}, attempt 2"
    run.jobs[1].labels = frozenset({"train"})
    until(lambda: run.attempt == 2 and run.done, "the second attempt", 60)
    assert run.conclusion == "success"


def test_a_checkpoint_comes_first_and_knows_why(world: World, launch: Launch) -> None:
    saved = world.folder / "saved"
    script = f"echo $CML_RUNNER_REASON $CML_RUNNER_SECONDS_LEFT > {saved}; sleep 2"
    run = training(
        world,
        launch,
        "--idle-timeout=4",
        "--checkpoint-script=" + base64.b64encode(script.encode()).decode(),
    )
    busy(world, run)
    world.metadata.notice(only_machine(world), 30)
    ran_again(world, run)
    reason, seconds = saved.read_text().split()
    assert reason == "taken"
    assert 10 <= int(seconds) <= 15, "half of the notice"
    order = [
        stage for stage in stages(world) if stage in ("checkpoint", "checkpoint-done", "restart")
    ]
    assert order[:3] == ["checkpoint", "checkpoint-done", "restart"]


def test_a_recommendation_lets_the_job_save_and_go_on(world: World, launch: Launch) -> None:
    saved = world.folder / "saved"
    script = base64.b64encode(f"echo $CML_RUNNER_REASON > {saved}".encode()).decode()
    assert launch("--idle-timeout=4", f"--checkpoint-script={script}").wait() == 0
    job = world.github.forge.queue_job(["cml"], seconds=14)
    until(lambda: "job-started" in stages(world), "the agent to know")
    world.metadata.fate(only_machine(world)).rebalance = True
    until(saved.exists, "the checkpoint", 15)
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    assert (job.conclusion, saved.read_text()) == ("success", "rebalance\n")
    all_gone(world)


# --- without any secret on the machine: the mark, and a workflow that reads it


def event_of(run: Run, folder: Path) -> dict[str, str]:
    file = folder / "event.json"
    file.write_text(json.dumps({"action": "completed", "workflow_run": {"id": run.id}}))
    return {
        "GITHUB_EVENT_NAME": "workflow_run",
        "GITHUB_EVENT_PATH": str(file),
        "GITHUB_RUN_ID": "9999",
    }


def test_a_run_is_restarted_by_another_workflow(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    run = training(world, launch, "--idle-timeout=4", "--no-retry")
    first = busy(world, run)
    instance = only_machine(world)
    spec = json.loads((world.machines.root(instance) / "var/lib/cml-runner/spec.json").read_text())
    assert "api_token" not in spec
    world.metadata.notice(instance, 120)
    assert (
        said(world, instance, "restart")["outcome"] == "not restarted: restarting is switched off"
    )
    until(lambda: run.done, "the run to end")
    assert any(text.startswith("interrupted: ") for _, text in first.notes)
    restart = launch("restart", **event_of(run, tmp_path))
    assert restart.wait() == 0, restart.told
    assert restart.outputs["restarted"] == LAUNCH_JOB
    assert (
        f"`train` on `{first.runner_name}`: interrupted: the machine is being taken away"
        in restart.summary
    )
    ran_again(world, run)
    again = launch("restart", **event_of(run, tmp_path))
    assert again.wait() == 0, again.told
    assert again.outputs["restarted"] == ""
    assert "was not interrupted" in again.summary


def test_a_machine_that_vanished_is_known_by_the_forges_own_words(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    run = training(world, launch, "--idle-timeout=4", "--no-retry", "--name=trainer")
    world.github.forge.lost_after = 3
    busy(world, run)
    supervisor = world.machines.living[only_machine(world)].process
    kill_descendants(supervisor.pid)
    supervisor.kill()
    until(lambda: world.github.forge.run(run.id) and run.done, "the forge to give up", 30)
    restart = launch("restart", **event_of(run, tmp_path))
    assert restart.wait() == 0, restart.told
    assert "lost communication with the server" in restart.summary
    assert restart.outputs["restarted"] == LAUNCH_JOB, (
        "the launch job said that `trainer` is of this run"
    )


def test_a_job_that_failed_by_itself_is_not_restarted(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    assert launch("--idle-timeout=4", "--no-retry").wait() == 0
    job = world.github.forge.queue_job(["cml"], 0, "exit 3")
    world.github.forge.wait(lambda: job.status == "completed", "the job")
    run = world.github.forge.run(job.run_id)
    assert run
    restart = launch("restart", **event_of(run, tmp_path))
    assert restart.wait() == 0, restart.told
    assert (restart.outputs["restarted"], run.attempt) == ("", 1)


# --- whatever dies


def test_a_killed_agent_finds_its_job_again(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    job = world.github.forge.queue_job(["cml"], seconds=4)
    until(lambda: "job-started" in stages(world), "the agent to know")
    os.kill(agent_of(world), signal.SIGKILL)
    world.github.forge.wait(lambda: job.status == "completed", "the job", 30)
    assert job.conclusion == "success", "the runner outlived the agent"
    all_gone(world, 40)
    # If it was killed before its heartbeat, it reads the job's beginning again.
    assert [stage for stage in stages(world) if stage != "job-started"][-6:] == [
        "agent",
        "resumed",
        "job-finished",
        "leaving",
        "deregistered",
        "end",
    ]
    assert "cml-runner.service is started again" in world.machines.console(only_machine(world))


def test_an_agent_killed_again_takes_the_machine_along(world: World, launch: Launch) -> None:
    assert launch().wait() == 0
    world.github.forge.lost_after = 3
    world.github.forge.queue_job(["cml"], seconds=60)
    until(lambda: "job-started" in stages(world), "the agent to know")
    os.kill(agent_of(world), signal.SIGKILL)
    until(lambda: "resumed" in stages(world), "the second agent")
    os.kill(agent_of(world), signal.SIGKILL)
    until(lambda: not world.ec2.alive() and not world.processes(), "the machine to end", 60)
    assert "cml-runner.service was started 2 times" in world.machines.console(only_machine(world))


def test_a_runner_killed_while_busy_is_restarted_elsewhere(world: World, launch: Launch) -> None:
    """As out of memory would do it."""
    world.github.forge.lost_after = 2
    run = training(world, launch, "--idle-timeout=4")
    busy(world, run)
    supervisor = world.machines.living[only_machine(world)].process.pid
    for pid in descendants(supervisor):
        if b"Runner." in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    ran_again(world, run)
    all_gone(world)


def test_the_forge_is_down_for_the_whole_idle_time_and_longer(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=4").wait() == 0
    world.github.fail("DELETE", "/runners/", 503, times=10**6)
    until(lambda: not world.ec2.alive() and not world.processes(), "the machine to end", 90)
    assert "still-registered" in stages(world)


def test_two_signals_mean_now(world: World, launch: Launch) -> None:
    assert launch().wait() == 0
    world.github.fail("DELETE", "/runners/", 503, times=10**6)
    world.machines.end(only_machine(world))  # the power button
    until(lambda: "leaving" in stages(world), "the agent to leave")
    os.kill(agent_of(world), signal.SIGTERM)
    began = time.monotonic()
    until(lambda: "end" in stages(world), "the agent to end")
    assert time.monotonic() - began < 5
