"""Real workflows with `uses: ./`, run by act with a Docker engine: outputs to a dependent job, a
failure later on, a cancellation."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from runner_action.sandbox.world import KEY, TOKEN, World
from tests.e2e.engine import Engine, checkout, run
from tests.sandbox.conftest import all_gone, until

ACT = Path(sys.executable).parent / "act"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "${{ secrets.AWS_ACCESS_KEY_ID }}",
    "AWS_SECRET_ACCESS_KEY": "${{ secrets.AWS_SECRET_ACCESS_KEY }}",
}
INPUTS = {
    "cloud": "aws",
    "cloud-region": "us-west",
    "labels": "cml,gpu",
    "idle-timeout": 5,
    "token": "${{ secrets.TOKEN }}",
}
WHERE = {"driver": "github", "repo": "${{ vars.REPO }}"}
"""act says that this job is github.com's."""
LAUNCH = {
    "id": "launch",
    "uses": "./",
    "with": {**INPUTS, **WHERE},
    "env": {**CREDENTIALS, "AWS_ENDPOINT_URL": "${{ vars.AWS_ENDPOINT_URL }}"},
}
CHECKOUT = {"uses": "actions/checkout@v5"}

Act = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def act(engine: Engine, image: str, tmp_path: Path) -> Iterator[Act]:
    """Starts act with a workflow of these jobs in a checkout of this tree; `image` has filled
    the builder's cache."""
    started: list[subprocess.Popen[str]] = []

    def start(world: World, jobs: dict[str, object]) -> subprocess.Popen[str]:
        folder = checkout(tmp_path / "repository")
        engine.unpin(folder)
        workflow = folder / ".github/workflows/main.yml"
        shutil.rmtree(workflow.parent)  # our own would run too
        workflow.parent.mkdir()
        workflow.write_text(yaml.safe_dump({"on": "push", "jobs": jobs}))
        for words in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "-qm", "x"],
        ):
            run("git", "-C", str(folder), *words)
        given = world.environ()
        secrets = {
            "TOKEN": TOKEN,
            "AWS_ACCESS_KEY_ID": given["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": KEY,
        }
        known = {"REPO": given["CML_RUNNER_REPO"], "AWS_ENDPOINT_URL": given["AWS_ENDPOINT_URL"]}
        words = [word for name, value in known.items() for word in ("--var", f"{name}={value}")]
        words += [
            word for name in secrets for word in ("--secret", name)
        ]  # their values come from the environment
        argv = [
            str(ACT),
            "push",
            "--platform",
            f"ubuntu-latest={engine.base()}",
            "--pull=false",
            "--action-offline-mode",
            *words,
        ]
        environ = {**os.environ, **secrets, "DOCKER_HOST": engine.host}
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_dependent_job_knows_the_machine(act: Act) -> None:
    outputs = {
        "ip": "${{ steps.launch.outputs.instance-ip }}",
        "name": "${{ steps.launch.outputs.runner-name }}",
        "label": "${{ steps.launch.outputs.label }}",
    }
    launch = {"runs-on": "ubuntu-latest", "outputs": outputs, "steps": [CHECKOUT, LAUNCH]}
    say = {
        "run": (
            'echo "at=${{ needs.launch.outputs.ip }} on=${{ needs.launch.outputs.name }} by=${{'
            ' needs.launch.outputs.label }}"'
        )
    }
    with World(timer_factor=0.02) as world:
        process = act(
            world,
            {
                "launch": launch,
                "train": {"needs": "launch", "runs-on": "ubuntu-latest", "steps": [say]},
            },
        )
        told, _ = process.communicate(timeout=180)
        assert process.returncode == 0, told
        (name,) = world.forge.ever
        line = next(line for line in told.splitlines() if "| at=" in line)
        assert f"on={name} by={name}" in line
        assert "at= " not in line
        assert f"| `{name}` | cml,gpu |" in told, "the summary"
        assert "::notice title=cml-runner::Runner online" in told
        assert "cml-runner-cleanup" not in told, "nothing to clean up after a job that went well"
        for secret in (TOKEN, KEY):
            assert secret not in told
        all_gone(world)


def test_a_job_that_fails_later_takes_its_machine_back(act: Act) -> None:
    # Nothing but the clean-up can end the machine: on a busy host that comes after many seconds.
    launch = {**LAUNCH, "with": {**INPUTS, **WHERE, "idle-timeout": 600}}
    steps = [CHECKOUT, launch, {"run": "exit 3"}]
    with World(timer_factor=0.02) as world:
        process = act(world, {"launch": {"runs-on": "ubuntu-latest", "steps": steps}})
        told, _ = process.communicate(timeout=180)
        assert process.returncode != 0
        assert "Deleted machine" in told, told
        all_gone(world)


def test_a_cancelled_launch_leaves_nothing(act: Act, dead_world: World) -> None:
    process = act(dead_world, {"launch": {"runs-on": "ubuntu-latest", "steps": [CHECKOUT, LAUNCH]}})
    until(dead_world.ec2.alive, "the instance", 120)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode != 0, told
    all_gone(dead_world, 30)


def test_bad_inputs_are_told_on_the_job(act: Act, dead_world: World) -> None:
    launch = {**LAUNCH, "with": {**INPUTS, **WHERE, "cloud-region": "us-wst", "count": 0}}
    process = act(dead_world, {"launch": {"runs-on": "ubuntu-latest", "steps": [CHECKOUT, launch]}})
    told, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "2 problems with the inputs" in told
    assert "did you mean `us-west`" in told
    assert (dead_world.forge.ever, dead_world.machines.living) == ([], {})
