"""A job that tries all it can on a machine where it must not become root: whole lives, and every
way in which they end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from runner_action.model import ForgeName
from tests.hostile.machine import SYSTEM, Machine, machine, names, seat_of, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(SYSTEM).exists(),
    reason="SKIPPED LOUDLY: only root can have jobs run as another user",
)
VARIANTS = ("link", "dangling", "above", "fifo", "socket", "folder", "hardlink", "huge", "text")
ENDS = ("idle", "shut down", "killed", "runner killed", "watchdog")
LIVES = list(product([ForgeName.GITHUB, ForgeName.GITLAB], [True, False], VARIANTS, ENDS))
SAMPLE = [life for number, life in enumerate(LIVES) if number % 19 == 0]
LONGEST = 45.0
"""Seconds within which every life here ends, whatever the job does: it can pretend to go on, but
not past `max-lifetime`."""


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine(request.param[0], restart=request.param[1]) as made:
        yield made


def ended(one: Machine, agent: subprocess.Popen[bytes]) -> None:
    """Raises TimeoutError. Meanwhile GitHub notices which runners have vanished with their jobs."""

    def over() -> bool:
        with one.server.forge._changed:
            one.server.forge._sweep()
        return agent.poll() is not None

    until(over, "the end of this life", LONGEST)


def live(one: Machine, variant: str, end: str) -> None:
    one.write_spec()
    agent = one.start()
    until(lambda: "online" in one.console, "the runner", 60)
    one.attack(variant, "" if end == "idle" else "sleep 60")
    until(lambda: list(one.loot.glob("report-*")) or agent.poll() is not None, "the attack")
    time.sleep(1.2)  # the agent has heard of it
    if end == "killed":
        agent.kill()
        agent.wait()
        one.start("cleanup", wait=True, SERVICE_RESULT="signal", EXIT_CODE="killed")
        agent = one.start()
        until(
            lambda: "resumed" in one.console or agent.poll() is not None,
            "the agent that is started anew",
        )
    if end in ("shut down", "killed"):
        (one.folder / "stopping").write_text(
            "7 shutdown.target start waiting\n8 cml-runner.service stop running\n"
        )
        agent.send_signal(signal.SIGTERM)
        ended(one, agent)
    elif end == "idle":
        ended(one, agent)
    elif end == "runner killed":
        os.killpg(int((one.home / "runner.pid").read_text()), signal.SIGKILL)
        ended(one, agent)
    else:
        agent.kill()
        agent.wait()
        one.start("watchdog", wait=True)
        one.stop_all()  # as the power-off does that follows
    seat = seat_of(one)
    if seat:  # GitHub keeps a runner on its list that vanished with its job, until it notices
        one.server.forge.wait(lambda: seat.job is None, "the job to be given up", 20)
    one.start("cleanup", wait=True, SERVICE_RESULT="exit-code")


@pytest.mark.parametrize(
    ("whole", "variant", "end"),
    [((forge, restart), variant, end) for forge, restart, variant, end in SAMPLE],
    indirect=["whole"],
)
def test_a_hostile_job_gains_nothing(whole: Machine, variant: str, end: str) -> None:
    live(whole, variant, end)
    assert whole.attempts() > 100, whole.console[-4000:]
    assert list(whole.gains()) == [], whole.console[-4000:]
    assert seat_of(whole) is None, "its own runner leaves all the same"


AGAIN = """import os
from pathlib import Path
from agent import forge, process
from agent.spec import AgentSpec
home, user = Path.cwd(), process.job_user("USER", {})
spec = AgentSpec.from_json(Path("spec.json").read_text())
env = process.child_environment(user, os.environ)
member = forge.member(spec, home / "runner", env, process.identity(user))
member.environment(home / "hooks", home / "jobs")
print("written")
"""


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "whole", [(ForgeName.GITHUB, True), (ForgeName.GITLAB, True)], indirect=True
)
def test_a_runner_that_is_started_anew_after_jobs_gets_nothing_written_through_theirs(
    whole: Machine, variant: str
) -> None:
    whole.write_spec()
    (whole.home / "runner").mkdir()
    (whole.home / "jobs").touch()
    for name in ("runner", "jobs"):
        shutil.chown(whole.home / name, whole.user)
    whole.note(variant)
    attack = [SYSTEM, "-S", str(whole.folder / "attacker.py"), str(whole.folder / "facts.json")]
    subprocess.run(
        attack,
        user=whole.user,
        group=pwd.getpwnam(whole.user).pw_gid,
        extra_groups=[],
        cwd="/",
        check=True,
    )
    done = subprocess.run(
        [SYSTEM, "-c", AGAIN.replace("USER", whole.user)],
        cwd=whole.home,
        env=whole.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert whole.attempts() > 100
    assert list(whole.gains()) == []
    # What the job has made of its own files is its own trouble, and told.
    assert "written" in done.stdout or "Error" in done.stderr, done.stderr


def test_files_of_the_agent_are_known_by_its_source() -> None:
    assert {
        "spec.json",
        "config.toml",
        "registered",
        "runner.pid",
        ".runner",
        "heartbeat",
        "checkpoint.sh",
        "gone",
    } <= set(names())
