"""All that users may ask for in one launch on AWS, whose 16 KiB it fills; and a machine that has
to fetch its agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.bundle import bundle
from runner_action.model import ForgeName
from runner_action.providers.aws.plan import USER_DATA_LIMIT
from runner_action.sandbox.world import World
from tests import large
from tests.fakes import unpacked
from tests.sandbox.conftest import Launch, all_gone, until
from tests.sandbox.test_lives import only_machine
from tests.sandbox.test_story import stages

pytestmark = pytest.mark.sandbox
HARMLESS = large.SCRIPT.replace("\n", "\nexit 0\n", 1)
"""What a startup script of this size does is not the question: machines of the embedded world
are processes of this one."""
ALL = [
    f"--{name.replace('_', '-')}={text}"
    for name, text in large.EVERYTHING.items()
    if name not in ("repo", "cloud_startup_script")
]
LONG = f"--cloud-startup-script=#!/bin/sh\n# {large.word(6000, 'long')}\nexit 0\n"


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(getattr(request, "param", ForgeName.GITHUB), timer_factor=0.02) as made:
        yield made


def home(world: World) -> Path:
    return world.machines.root(only_machine(world)) / "var/lib/cml-runner"


def test_all_of_it_in_one_launch(world: World, launch: Launch) -> None:
    world.github.tokens = {**world.github.tokens, large.TOKEN: "admin"}
    launcher = launch(*ALL, f"--cloud-startup-script={HARMLESS}", f"--restart-token={large.TOKEN}")
    assert launcher.wait() == 0, launcher.told
    (given,) = world.machines.user_data.values()
    assert len(given) <= USER_DATA_LIMIT
    assert "key" in json.loads(unpacked(given)["var/lib/cml-runner/spec.json"])["jit"]
    left = json.loads((home(world) / "spec.json").read_text())
    assert {"jit", "jit_config", "registration_token", "download_token"}.isdisjoint(left), "used up"
    job = world.forge.queue_job(large.LABELS.split(","), 0.1)
    until(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    all_gone(world)


@pytest.mark.parametrize("world", [ForgeName.GITHUB, ForgeName.GITLAB], indirect=True)
def test_a_machine_without_room_fetches_its_agent(world: World, launch: Launch) -> None:
    launcher = launch("--idle-timeout=3", LONG)
    assert launcher.wait() == 0, launcher.told
    assert f"fetches it from {world.github.agent_downloads}/{bundle().name}" in launcher.told
    assert stages(world)[:2] == ["agent-fetch", "agent"]
    all_gone(world)


def test_without_a_release_the_launch_says_what_to_shorten(world: World, launch: Launch) -> None:
    launcher = launch(LONG, "--labels=train", CML_RUNNER_RELEASE="")
    assert launcher.wait() == 2
    assert "its parts, in bytes: cloud-startup-script " in launcher.told
    assert "or `agent-downloads`, so that the machine downloads the agent itself" in launcher.told
    assert "Nothing was created" in launcher.told
    assert (world.left(), world.forge.ever) == ([], [])


def test_without_a_release_a_single_one_comes_up_all_the_same(world: World, launch: Launch) -> None:
    flags = "--single", "--no-retry", "--docker=none", f"--labels={large.LABELS}"
    launcher = launch(*flags, CML_RUNNER_RELEASE="")
    assert launcher.wait() == 0, launcher.told
    job = world.forge.queue_job(large.LABELS.split(",")[:1], 0.1)
    until(lambda: job.status == "completed", "the job")
    all_gone(world)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "HTTP 404 from"), (b"{}", "has the SHA-256 44136fa3")]
)
def test_what_is_not_published_is_known_before_anything_is_made(
    content: bytes | None, said: str, world: World, launch: Launch
) -> None:
    world.github.assets = {bundle().name: content} if content else {}
    launcher = launch(LONG)
    assert launcher.wait() == 6
    assert said in launcher.told
    assert (world.left(), world.forge.ever, world.machines.user_data) == ([], [], {})


class Later(dict[str, bytes]):
    """Right when the launcher asks; another content, or nothing, from then on."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__({bundle().name: bundle().content})
        self.content, self.asked = content, 0

    def __getitem__(self, name: str) -> bytes:
        self.asked += 1
        if self.asked == 1:
            return super().__getitem__(name)
        return self.content or b""


@pytest.mark.parametrize("content", [bundle().content + b" ", None], ids=["other", "empty"])
def test_a_machine_runs_nothing_else_and_everything_is_taken_back(
    content: bytes | None, world: World, launch: Launch
) -> None:
    world.github.assets = Later(content)
    launcher = launch(LONG, "--single")
    assert launcher.wait() == 6, launcher.told
    assert f"expected {bundle().sha256}" in launcher.told
    assert not (home(world) / "agent").exists()
    all_gone(world)


def test_the_way_to_the_agent_may_be_bad_for_a_while(world: World, launch: Launch) -> None:
    """The launcher's one question is answered by 503, which it only tells; the machine asks on."""
    world.github.fail("GET", "octo/cml-runner/releases", 503, times=3)
    launcher = launch("--idle-timeout=3", LONG)
    assert launcher.wait() == 0, launcher.told
    assert "Could not check that the machine's agent is at" in launcher.told
    all_gone(world)
