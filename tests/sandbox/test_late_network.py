"""A machine whose way out comes late, or whose forge is down for some seconds while it starts:
nothing of that ends a launch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from runner_action.sandbox.served import Application, Served, Start
from runner_action.sandbox.world import World
from tests.sandbox.conftest import LEAST, Launch
from tests.sandbox.test_story import stages

pytestmark = pytest.mark.sandbox

Answer = Callable[[dict[str, Any], Start], Iterable[bytes]]


def no_way_out(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    environ["werkzeug.socket"].close()
    raise ConnectionResetError


def busy(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """The page of GitHub's load balancer."""
    start("503 Service Unavailable", [("Content-Type", "text/html")])
    return [b"<html>\n<h1>Unicorn!</h1></html>"]


def between(part: str, answer: Answer, seconds: float) -> tuple[Callable[..., Any], list[float]]:
    """Lets requests to the machine's own paths with this part fail for so long after the first;
    the times of all of them."""
    asked: list[float] = []

    def serve(app: Application, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if part in environ["PATH_INFO"]:
            asked.append(time.monotonic())
            if asked[-1] - asked[0] < seconds:
                return answer(environ, start)
        return app(environ, start)

    return serve, asked


@pytest.mark.parametrize(
    ("world", "answer", "part"),
    [
        ("github", no_way_out, "/actions/runner/releases/"),
        ("gitlab", busy, "/binaries/"),
    ],
    indirect=["world"],
)
def test_a_download_that_fails_for_a_while_is_tried_again(
    answer: Answer, part: str, world: World, launch: Launch
) -> None:
    service: Served = world.github if "actions" in part else world.gitlab
    service.between, asked = between(part, answer, 4.5)
    launcher = launch("--idle-timeout=4")
    assert launcher.wait() == 0, launcher.told
    assert stages(world).count("waiting") == 1, "each reason is told once"
    assert len(asked) >= 4


def test_a_registration_that_fails_for_a_while_is_tried_again(world: World, launch: Launch) -> None:
    """actions/runner itself tries three times, within some seconds."""
    world.github.between, asked = between("/runner-registration", busy, 2)
    launcher = launch("--idle-timeout=4", **LEAST)
    assert launcher.wait() == 0, launcher.told
    assert "waiting" in stages(world)
    assert len(asked) > 3
