"""The step after a launch job that failed or was cancelled: what a killed launcher left is taken
back, and nothing else is touched."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from runner_action.sandbox.clouds.aws.ec2 import ONLOOKER
from runner_action.sandbox.world import World
from tests.matrix.gate import arrive
from tests.sandbox.conftest import Launch, Launcher, all_gone, until

pytestmark = pytest.mark.sandbox


@pytest.fixture(params=["github", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    # The machines never boot: only the clean-up can end them before their start timeout.
    with World(request.param, boots=False) as made:
        yield made


def after(
    launch: Launch, job: Launcher, *argv: str, status: str = "canceled", forgotten: bool = False
) -> Launcher:
    """The step after that job, with the inputs and the environment that the forge gives it;
    `forgotten`: but for the state of the job."""
    if forgotten:
        (job.folder / "state").unlink(missing_ok=True)
    state = (
        dict(line.split("=", 1) for line in (job.folder / "state").read_text().splitlines())
        if (job.folder / "state").exists()
        else {}
    )
    given = {f"STATE_{name}": value for name, value in state.items()}
    done = launch(
        *argv,
        CML_RUNNER_COMMAND="cleanup",
        CI_JOB_STATUS=status,
        CI_PROJECT_DIR=str(job.folder),
        **given,
    )
    done.wait()
    return done


@pytest.mark.parametrize(
    "argv", [["--count=2"], ["--single"], ["--reuse"]], ids=["two", "single", "its turn"]
)
def test_a_launcher_that_was_killed_while_it_waited(
    argv: list[str], world: World, launch: Launch
) -> None:
    launcher = launch(*argv)
    until(lambda: len(world.ec2.alive()) == (2 if "--count=2" in argv else 1), "the instances")
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    assert world.left()
    done = after(launch, launcher, *argv)
    assert done.process.returncode == 0, done.told
    assert "Deleted machine" in done.told
    all_gone(world)
    assert "Nothing to clean up" not in done.told
    if world.kind.value == "gitlab":
        nothing = "this job created no runner, or has already deleted it"
        assert nothing in after(launch, launcher, *argv).told


def test_a_launcher_that_was_killed_while_it_asked_for_a_machine(
    world: World, launch: Launch
) -> None:
    """On GitLab, or with a single runner, there is a registration already."""
    world.ec2.delays["CreateFleet"] = 2
    launcher = launch("--single")
    until(lambda: world.forge.seats(), "the registration")
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    done = after(launch, launcher, "--single")
    assert done.process.returncode == 0, done.told
    all_gone(world)


def test_a_launch_that_failed_has_nothing_left_to_clean_up(world: World, launch: Launch) -> None:
    world.ec2.refuse(
        lambda form: form["Action"] == "RunInstances", "UnauthorizedOperation", 403, "No."
    )
    launcher = launch()
    assert launcher.wait() != 0
    asked = len(world.server.requests)
    done = after(launch, launcher, status="failed")
    assert (done.process.returncode, len(world.server.requests)) == (0, asked), done.told
    assert "this job created no runner, or has already deleted it" in done.told


def test_what_could_not_be_taken_back_is_told(world: World, launch: Launch) -> None:
    launcher = launch("--single")
    until(lambda: world.ec2.alive(), "the instance")
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    world.ec2.refuse(
        lambda form: form["Action"] == "TerminateInstances", "UnauthorizedOperation", 403, "No."
    )
    done = after(launch, launcher, "--single")
    assert done.process.returncode == 1
    assert "Not everything could be deleted: Could not delete machine i-" in done.told
    assert world.forge.seats() == [], (
        "the forge's list is cleared though the machine could not be ended"
    )


@pytest.mark.parametrize("world", ["github"], indirect=True)
def test_a_stranded_runner_that_cannot_go_does_not_keep_the_others(
    world: World, launch: Launch
) -> None:
    """The launch had ended its machines before it was killed: nobody knows their ids any more."""
    launcher, arrived = launch("--count=3"), set[str]()
    until(lambda: len(world.ec2.alive()) == 3, "the instances")
    launcher.kill(signal.SIGKILL)
    launcher.wait()
    arrive(world, arrived)
    client = boto3.client(
        "ec2",
        region_name="us-west-1",
        endpoint_url=world.ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    client.terminate_instances(InstanceIds=world.ec2.alive())
    until(lambda: not world.ec2.alive(), "their end")
    arrive(world, arrived)
    first, *_ = world.forge.seats()
    world.server.fail("DELETE", f"/runners/{first.id}$", 403)
    done = after(launch, launcher, "--count=3")
    assert done.process.returncode == 1
    assert f"Runner {first.name} is still registered: GitHub answered 403" in done.told
    assert world.forge.seats() == [first]
    assert after(launch, launcher, "--count=3").process.returncode == 0
    all_gone(world)


def test_a_runner_that_was_only_reused_stays(launch: Launch, tmp_path: Path, world: World) -> None:
    seat = world.forge.seat("trainer", ["cml"], ephemeral=False)
    world.forge.set_online(seat, online=True)
    launcher = launch("--reuse", "--name=trainer")
    assert launcher.wait() == 0, launcher.told
    done = after(launch, launcher, "--reuse", "--name=trainer", status="failed")
    assert done.process.returncode == 0, done.told
    assert [seat.name for seat in world.forge.seats()] == ["trainer"]


@pytest.mark.parametrize("world", ["github"], indirect=True)
def test_without_a_note_only_what_bears_the_marks_of_this_very_run_is_ours(
    launch: Launch, world: World
) -> None:
    """As under act, which gives a container no state."""
    seat = world.forge.seat("trainer", ["cml"], ephemeral=False)
    launcher = launch("--name=trainer", GITHUB_JOB="other")
    until(world.ec2.alive, "the instance of another job")
    stranger = after(launch, launcher, "--name=trainer", forgotten=True)
    assert stranger.process.returncode == 0, stranger.told
    assert world.ec2.alive()
    assert world.forge.seats() == [seat]
    launcher.kill(signal.SIGKILL)
    done = launch("--name=trainer", CML_RUNNER_COMMAND="cleanup", GITHUB_JOB="other")
    assert done.wait() == 0, done.told
    until(lambda: not world.ec2.alive(), "its end")
    assert world.forge.seats() == [seat], "of that name, but without the label of any launch"


def test_a_job_that_succeeded_keeps_its_runner() -> None:
    with World("gitlab", timer_factor=0.02) as world:
        folder = world.folder / "job"
        folder.mkdir()
        launcher = Launcher(world, folder, "--idle-timeout=5")
        assert launcher.wait() == 0, launcher.told
        done = Launcher(world, folder, CML_RUNNER_COMMAND="cleanup", CI_JOB_STATUS="success")
        assert done.wait() == 0
        assert "its runner is in use" in done.told
        assert world.forge.seats()
        all_gone(world)


@pytest.mark.parametrize("world", ["gitlab"], indirect=True)
@pytest.mark.parametrize("place", ["in the tree", "beside it"])
def test_a_runner_of_others_stays_whatever_a_note_says(
    place: str, world: World, launch: Launch
) -> None:
    """A branch may bring a file, an earlier job on the same machine may leave one; and this job's
    launch fails before it notes anything, as without `script` it is none."""
    world.forge.set_online(world.forge.seat("prod-deploy", ["prod"], ephemeral=False), online=False)
    failed = launch("--count=0")  # for its folder
    failed.wait()
    note = json.dumps(
        {"job": f"{world.job_environ()['CI_SERVER_URL']} 1", "runners": ["prod-deploy"]}
    )
    old = {".cml-runner-state": "prod-deploy", "cml-runner-1": note}
    folder = (
        failed.folder
        if place == "in the tree"
        else failed.folder.with_name(f"{failed.folder.name}.tmp")
    )
    folder.mkdir(exist_ok=True)
    for name, text in old.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    done = after(launch, failed, status="failed")
    assert done.process.returncode == 0, done.told
    assert [seat.name for seat in world.forge.seats()] == ["prod-deploy"]
    assert "prod-deploy" not in done.told
