"""What jobs leave mounted in their workspace, and what that holds: never emptied, and not there
for the next job."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.runners import console
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.world import World
from tests.agent.test_removal import DEAD
from tests.sandbox.conftest import Launch, all_gone, until
from tests.sandbox.test_story import agent_of, stages

pytestmark = pytest.mark.sandbox

BOUND = "mkdir data && mount --bind {share} data"
LEFT = {
    "a folder of the same file system": BOUND,
    "a folder that is to be read only": BOUND + " && mount -o remount,bind,ro data",
    "another file system": "mkdir data && mount --bind {other} data",
    "two, one on the other": BOUND + " && mount --bind {other} data",
    "one in the other": BOUND + " && mount --bind {other} data/deep",
    "below a name with blanks": "mkdir -p 'a b\\c/d\te' && mount --bind {share} 'a b\\c/d\te'",
    "a single file": "touch weights && mount --bind {share}/model-0.bin weights",
    "below a folder that is closed": (
        "mkdir closed && cd closed && " + BOUND + " && chmod 0 ../closed"
    ),
    "a share whose program has ended": (
        "mkdir data && cd data && " + shlex.join([sys.executable, "-c", DEAD])
    ),
    "a link and no mount": "ln -s {share} data",
    "a link in place of the workspace": "cd .. && rmdir train && ln -s {share} train && cd train",
    "the workspace itself": 'mount --bind {share} "$GITHUB_WORKSPACE"',
}
"""What a job does that does not clean up behind itself. The last of them is left as it is."""
CHECKOUT = "ls -A > {seen}; find . -mindepth 1 -delete; echo fresh > new"
"""actions/checkout empties a workspace that is no clone, through whatever is mounted there."""
MODELS = {f"model-{number}.bin": "weights" for number in range(3)} | {"deep/x": "y"}


def filled(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name, text in MODELS.items():
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4] for line in lines]


@pytest.fixture
def shares(tmp_path: Path) -> Iterator[Path]:
    """A folder for what is mounted, on a file system of its own: it is another one, and nothing
    of it stays."""
    folder = tmp_path / "shares"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED LOUDLY: nothing can be mounted here")
    yield folder
    for place in reversed(mounts()):
        if place.startswith(str(folder)):
            subprocess.run(["umount", "-l", place], check=False)


def run(world: World, command: str, seconds: float = 0.1) -> Job:
    job = world.github.forge.queue_job(["cml"], seconds, command)
    world.github.forge.wait(lambda: job.status == "completed", "the job", 60)
    return job


def told_left(world: World) -> list[str]:
    """What the machine has said that it could not remove."""
    console_text = world.machines.console(next(iter(world.machines.living)))
    return [str(line["why"]) for line in console.entries(console_text) if line["stage"] == "left"]


def test_no_share_is_emptied_and_the_next_job_finds_none(
    world: World, launch: Launch, shares: Path
) -> None:
    assert launch("--idle-timeout=40").wait() == 0
    root = world.machines.root(next(iter(world.machines.living)))
    work, seen = root / "var/lib/cml-runner/runner/_work", world.folder / "seen"
    emptied = []
    found = {}
    ended = {}
    notes = {}
    for number, (what, command) in enumerate(LEFT.items()):
        # One on the machine's own file system, one on another.
        share, other = filled(root / f"share-{number}"), filled(shares / str(number))
        job = run(world, "touch trained; " + command.format(share=share, other=other))
        ended[what], notes[what] = job.conclusion, [text for _, text in job.notes]
        itself = what == "the workspace itself"
        run(world, f"ls -A > {seen}" if itself else CHECKOUT.format(seen=seen))
        found[what] = seen.read_text().split()
        emptied += [what for one in (share, other) if not MODELS.items() <= content(one).items()]
    assert emptied == []
    assert found.pop("the workspace itself"), "it is left as it is"
    assert {what: names for what, names in found.items() if names} == {}, "found by the next job"
    assert set(ended.values()) == {"success"}
    assert ["busy" in text for text in notes.pop("the workspace itself")] == [True], "and said"
    assert not any(notes.values())
    until(lambda: not list(work.glob("_cml-done-*")), "what was moved away to be removed", 60)
    assert told_left(world) == []
    assert [place for place in mounts() if place.startswith(str(root))] == [
        str(work / "train/train")
    ]


# --- however long removing takes

SLOW = """
import os, time
unlink = os.unlink

def slow(*names, **at):
    if at:  # what removes trees names folders by their handles
        time.sleep(0.5)
    unlink(*names, **at)

os.unlink = slow
"""
FILES = "for number in $(seq 120); do touch $number; done"


@pytest.fixture
def slow_disk(world: World, tmp_path: Path) -> None:
    """Of the machines: half a second for each file that is removed."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW)
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/slow exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    world.machines.python = str(python)


def work_of(world: World) -> Path:
    return (
        world.machines.root(next(iter(world.machines.living))) / "var/lib/cml-runner/runner/_work"
    )


@pytest.mark.usefixtures("slow_disk")
def test_removing_is_no_part_of_a_job_and_touches_none_that_comes(
    world: World, launch: Launch
) -> None:
    assert launch("--idle-timeout=4", "--first-job-timeout=30").wait() == 0
    began = time.monotonic()
    for _ in range(2):
        assert (
            run(
                world, f"test ! -e 1; {FILES}; sleep 3; ls | wc -l > {world.folder}/seen"
            ).conclusion
            == "success"
        )
        assert (world.folder / "seen").read_text().strip() == "120"
    assert time.monotonic() - began < 50, "removing takes a minute"
    away = list(work_of(world).glob("_cml-done-*"))
    assert [path for path in away if any(path.iterdir())], "and is not done yet"
    all_gone(world, 60)
    assert "the runner hangs" not in world.machines.console(next(iter(world.machines.living)))


@pytest.mark.usefixtures("slow_disk")
def test_on_a_machine_of_one_job_nothing_is_removed_or_moved(world: World, launch: Launch) -> None:
    assert launch("--single").wait() == 0
    assert run(world, FILES).conclusion == "success"
    all_gone(world, 60)
    assert {path.name for path in work_of(world).iterdir()} == {"_temp", "train"}
    assert len(list((work_of(world) / "train/train").iterdir())) == 120


@pytest.mark.usefixtures("slow_disk")
def test_an_agent_that_was_killed_goes_on_removing(world: World, launch: Launch) -> None:
    assert launch("--idle-timeout=60").wait() == 0
    run(world, "touch 1 2 3 4 5 6 7 8")
    job = world.github.forge.queue_job(["cml"], 12, "touch mine")
    until(lambda: stages(world).count("job-started") == 2, "the second job")
    time.sleep(1)  # it writes down what it knows right after it has said so
    os.kill(agent_of(world), signal.SIGKILL)
    world.github.forge.wait(lambda: job.status == "completed", "the job", 60)
    assert job.conclusion == "success"
    until(lambda: "resumed" in stages(world), "the agent to be back", 60)
    until(
        lambda: not list(work_of(world).glob("_cml-done-*")),
        "what was moved away to be removed",
        60,
    )
