"""Everything that launches and worlds load and work out when they are there for the first time,
so that processes forked later have it."""

from __future__ import annotations

import importlib
import io
import os
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import cache

import botocore.session
from werkzeug.routing.rules import Rule

from runner_action import cli
from runner_action.sandbox.world import World
from tests.matrix.gate import Gate
from tests.matrix.points import CLOUDS, stories
from tests.matrix.trial import argv_of, environ_of, sweep

FAULTS = (
    "botocore.retries.standard",
    "tenacity",
    "google.auth.exceptions",
    "google.api_core.retry",
)
"""Loaded only where something goes wrong."""
REST_SECONDS = 10.0


@cache
def warm(clouds: tuple[str, ...] = CLOUDS) -> None:
    """A launch and a sweep of each of these clouds and each forge, in this process. It has no
    other threads afterwards."""
    Rule._compile_builder = lambda *_: lambda *_: ("", "")  # type: ignore[method-assign]  # half of what a world costs, and nobody asks for URLs
    botocore.session.create_loader = cache(
        botocore.session.create_loader
    )  # one reader of boto3's descriptions for all sessions
    for name in FAULTS:
        importlib.import_module(name)
    for story in stories():
        if story.cloud in clouds and not story.flags and not story.ends:
            with (
                World(story.forge, story.cloud, boots=False) as world,
                redirect_stdout(io.StringIO()) as said,
                redirect_stderr(said),
            ):
                gate = Gate(world, None, cancelled=False)
                gate.begin(os.getpid())
                os.environ.update(world.job_environ())  # where boto3 looks
                code = cli.main(argv_of(world, story), environ_of(world))
                assert code == 0, f"{story}: exit code {code}\n{said.getvalue()}"
                sweep(world)
    end = time.monotonic() + REST_SECONDS
    while threading.active_count() > 1:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)
