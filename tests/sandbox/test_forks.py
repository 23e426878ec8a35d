"""A job for a pull request from a fork, as the forge tells of it: refused before anybody is
asked anything, launched when that is said to be welcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner_action.sandbox.world import World
from tests.sandbox.conftest import Launch, all_gone

pytestmark = pytest.mark.sandbox

OURS, THEIRS = {"id": 1, "full_name": "octo/train"}, {"id": 2, "full_name": "mallory/train"}
MERGE_REQUEST = {
    "CI_MERGE_REQUEST_PROJECT_ID": "5",
    "CI_MERGE_REQUEST_PROJECT_PATH": "octo/train",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "9",
}


@pytest.fixture(params=["github", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param, timer_factor=0.02) as made:
        yield made


@pytest.fixture
def request_of_a_fork(world: World, tmp_path: Path) -> dict[str, str]:
    """What the forge tells the job."""
    if world.kind == "gitlab":
        return {**MERGE_REQUEST, "CI_MERGE_REQUEST_SOURCE_PROJECT_PATH": "mallory/train"}
    file = tmp_path / "event.json"
    file.write_text(
        json.dumps(
            {
                "pull_request": {"number": 7, "head": {"repo": THEIRS}, "base": {"repo": OURS}},
                "repository": OURS,
            }
        )
    )
    return {"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_EVENT_PATH": str(file)}


def test_nothing_is_asked_and_nothing_is_made(
    world: World, launch: Launch, request_of_a_fork: dict[str, str]
) -> None:
    launcher = launch(**request_of_a_fork)
    assert launcher.wait() == 2
    assert "code from mallory/train, a fork of octo/train" in launcher.told
    assert "set input allow-forks to true" in launcher.told
    assert (world.server.requests, world.ec2.calls, world.left()) == ([], [], [])


def test_where_forks_are_welcome_it_is_launched(
    world: World, launch: Launch, request_of_a_fork: dict[str, str]
) -> None:
    launcher = launch("--idle-timeout=4", CML_RUNNER_ALLOW_FORKS="true", **request_of_a_fork)
    assert launcher.wait() == 0, launcher.told
    all_gone(world)
