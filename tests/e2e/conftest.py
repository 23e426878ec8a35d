"""The engine, the image and the worlds of the tests with containers. One of each: these tests
run one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner_action.sandbox.world import World
from tests.e2e.engine import Engine, Missing

TAG = "cml-runner:e2e"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    try:
        made = Engine()
        made.base()
    except Missing as missing:
        pytest.skip(f"SKIPPED LOUDLY: this machine has not {missing}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """A build that fails is a failure: only what the machine lacks is a reason to skip."""
    return engine.build(TAG)


@pytest.fixture(params=["github", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param, timer_factor=0.02) as made:
        yield made


@pytest.fixture
def dead_world() -> Iterator[World]:
    """Its machines never come to life, so that a launch waits until somebody ends it."""
    with World(boots=False) as made:
        yield made
