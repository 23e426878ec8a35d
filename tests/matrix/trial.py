"""One point in a world of its own: a launch, what happens to it, and what is left, at once and
after the sweep."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from runner_action import forges, inputs, providers
from runner_action.commands.reap import reap
from runner_action.model import ForgeName
from runner_action.runners.context import Context
from runner_action.sandbox.world import World
from runner_action.waiting import SystemClock
from tests.fakes import FakeClock
from tests.matrix.gate import Gate, machines
from tests.matrix.nursery import Nursery
from tests.matrix.points import KILLED, Call, Fate, Point, Story, numbered

HUNG_SECONDS = 180.0
GRACE_SECONDS = 10.0
"""What GitHub gives a cancelled step: 7.5 s after SIGINT, 2.5 s more after SIGTERM."""
REST_SECONDS = 3.0
GONE_SECONDS = 0.5
"""In these a deletion that has been accepted is done, and its runner offline."""
TRIES = 5
LIFETIME, START = 3600, 30
PASSING = (Fate.ERROR, Fate.CUT, Fate.LOST, Fate.TWICE)
"""One fault of these, or of silence, is nothing that a launch fails for; and, but for silence,
nothing that takes its time to end well."""
CATALOGUE = (3, 4, 5, 6)
FREE = "firewall rule"
"""Costs nothing, opens no machine, and goes with a later sweep: the clean-up step may leave it."""
LEFT_BEHIND = (
    "Could not delete machine",
    "could not be deleted",
    "is still registered",
    "is not known",
    "could not be asked",
    "has not answered the request",
    "There was no time to confirm",
    "Could not check whether",
    "Could not confirm",
)
"""How a launcher reports what it leaves."""


@dataclass(frozen=True)
class Outcome:
    """`problems`: none, if all is well. `left`: when the launcher had ended; the sweep has
    removed it."""

    point: Point
    came: bool
    code: int
    seconds: float | None
    left: tuple[str, ...]
    problems: tuple[str, ...]
    log: str


@dataclass
class Stage:
    """A world with a launch in it that has ended. `seconds`: from its signal to its end."""

    gate: Gate
    code: int
    seconds: float | None
    log: str


def record(story: Story, nursery: Nursery) -> list[Call]:
    """The calls of a launch to which nothing happens."""
    with World(story.forge, story.cloud, boots=False) as world:
        stage = play(world, story, None, nursery)
        assert stage.code == (143 if story.ends else 0), (
            f"{story}: exit code {stage.code}\n{stage.log}"
        )
        left = rest(world) if story.ends else []
        assert not left, f"{story}: {left}"
        assert story.ends or len(machines(world)) == story.count, f"{story}: {world.left()}"
        return numbered(stage.gate.names)


def attempt(point: Point, nursery: Nursery) -> Outcome:
    """Calls go side by side, and some only while something is not ready yet: what does not come
    up is tried again."""
    outcome = _attempt(point, nursery)
    for _ in range(TRIES - 1):
        if outcome.came or outcome.problems:
            break
        outcome = _attempt(point, nursery)
    return outcome


def _attempt(point: Point, nursery: Nursery) -> Outcome:
    with World(point.story.forge, point.story.cloud, boots=False) as world:
        stage = play(world, point.story, (point.call, point.fate), nursery)
        ends = stage.code and not (point.fate in KILLED and stage.gate.came)
        at_once = tuple(rest(world) if ends else world.left())
        problems = list(_problems(point, world, stage, at_once))
        if point.fate is Fate.CLEANED and stage.gate.came:
            settle(world)
            time.sleep(GONE_SECONDS)
            stage.gate.arrive()
            problems += clean_up(world, point.story, nursery)
        settle(world)
        stage.gate.arrive()
        sweep(world)
        if left := rest(world):
            problems.append(f"after the sweep there is {', '.join(left)}")
        return Outcome(
            point, stage.gate.came, stage.code, stage.seconds, at_once, tuple(problems), stage.log
        )


def clean_up(world: World, story: Story, nursery: Nursery) -> list[str]:
    """The step after the job, which gets the inputs of the launch and its state: what is wrong
    with it."""
    log = world.folder / "after"
    state = world.folder / "state"
    told = (
        dict(line.split("=", 1) for line in state.read_text().splitlines())
        if state.exists()
        else {}
    )
    given = {
        **environ_of(world),
        **{f"STATE_{name}": value for name, value in told.items()},
        "CML_RUNNER_COMMAND": "cleanup",
        "CI_JOB_STATUS": "canceled",
    }
    nursery.launch(argv_of(world, story), given, log)
    code = nursery.wait()[1]
    problems = (
        [f"exit code {code} of the clean-up: {log.read_text('utf-8', 'replace')}"] if code else []
    )
    left = [one for one in rest(world) if not one.startswith(FREE)]
    return [*problems, f"after the clean-up there is {', '.join(left)}"] if left else problems


def settle(world: World) -> None:
    """Deletions that have been accepted are done long before anybody looks again."""
    end = time.monotonic() + REST_SECONDS
    while (
        any(cloud.deleting() for cloud in (world.gcp, world.azure) if cloud)
        and time.monotonic() < end
    ):
        time.sleep(0.05)


def rest(world: World) -> list[str]:
    """What is left when everything that is being deleted is gone: a deletion that was accepted
    takes its time."""
    end = time.monotonic() + REST_SECONDS
    while world.left() and time.monotonic() < end:
        time.sleep(0.05)
    return world.left()


def play(world: World, story: Story, at: tuple[Call, Fate] | None, nursery: Nursery) -> Stage:
    gate = Gate(world, at, cancelled=story.ends)
    log = world.folder / "log"
    gate.begin(nursery.launch(argv_of(world, story), environ_of(world), log))
    assert gate.pid
    hung = threading.Timer(HUNG_SECONDS, os.kill, (gate.pid, 9))
    hung.start()
    _, code, at_end = nursery.wait()
    hung.cancel()
    gate.end()
    if at and at[1] in KILLED:
        # One that was just ending by itself does not hear even that.
        gate.came = code == -signal.SIGKILL
    return Stage(
        gate,
        code,
        at_end - gate.signalled if gate.signalled else None,
        log.read_text("utf-8", "replace"),
    )


def argv_of(world: World, story: Story) -> list[str]:
    words = [f"--cloud={world.provider}", f"--max-lifetime={LIFETIME}", f"--start-timeout={START}"]
    return [*words, *(word.format(key=_key(world.folder)) for word in story.flags)]


def _key(folder: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        .decode()
    )


def environ_of(world: World) -> dict[str, str]:
    files = {
        "GITHUB_OUTPUT": "output",
        "GITHUB_STEP_SUMMARY": "summary",
        "GITHUB_STATE": "state",
        "RUNNER_TEMP": "",
        "CI_PROJECT_DIR": "",
    }
    return {
        **world.job_environ(),
        **{name: str(world.folder / file) for name, file in files.items()},
        "HOME": str(world.folder),
    }


def _problems(point: Point, world: World, stage: Stage, left: Sequence[str]) -> list[str]:
    found, fate = [], point.fate
    wanted = [128 + number for number in stage.gate.sent if number != signal.SIGKILL] or [
        0,
        *CATALOGUE,
    ]
    if fate in KILLED and stage.gate.came:
        wanted = [-signal.SIGKILL]
    if stage.code not in wanted:
        found.append(f"exit code {stage.code} instead of {' or '.join(map(str, wanted))}")
    if (
        fate not in KILLED
        and stage.code
        and left
        and not any(words in stage.log for words in LEFT_BEHIND)
    ):
        found.append(f"it left {', '.join(left)} without a word")
    if fate in (*PASSING, Fate.SILENT) and stage.code and not stage.gate.sent:
        found.append(f"it failed with {stage.code} for one fault")
    if fate in PASSING and stage.code and left:
        found.append(f"it left {', '.join(left)} though the fault passed")
    online = [seat.name for seat in world.forge.seats() if seat.online]
    if stage.code == 0 and (len(machines(world)), len(online)) != (point.story.count,) * 2:
        found.append(f"it made {len(machines(world))} machines and {len(online)} runners")
    if stage.seconds is not None and fate not in KILLED and stage.seconds > GRACE_SECONDS:
        found.append(f"it took {stage.seconds:.1f} s to end")
    if any(
        "canary" in line for line in stage.log.splitlines() if not line.startswith("::add-mask::")
    ):
        found.append("it told a secret")
    return found


# --- the sweep


def sweep(world: World) -> None:
    """Past the lease."""
    clock = FakeClock(
        at=(
            SystemClock().now() - FakeClock(at=0).now() + timedelta(seconds=2 * (LIFETIME + START))
        ).total_seconds()
    )
    environ = world.job_environ()
    world.ec2.enabled = ("us-west-1", "us-east-1")
    request = inputs.parse(
        inputs.Raw(flags={"cloud": [world.provider.value]}, environ=environ), lambda _: None
    )[0]
    assert request.cloud
    api = environ["GITHUB_API_URL" if world.kind is ForgeName.GITHUB else "CI_API_V4_URL"]
    forge = forges.forge_for(request, api)
    with patch.dict(os.environ, environ):  # where boto3 looks
        provider = providers.provider_for(request.cloud, environ, None, clock)
        reap(Context(request.repository, forge, provider, clock))
