"""A machine that its cloud takes is off when its time is over, whatever runs on it; and a console
is kept as far as clouds keep one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner_action.sandbox.clouds.aws.ec2 import CONSOLE_BYTES
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.machine.systemd import descendants
from tests.sandbox.conftest import until

pytestmark = pytest.mark.sandbox
DEAF = (
    "trap '' TERM INT HUP; echo deaf; sh -c \"trap '' TERM; while :; do sleep 1; done\" & while :;"
    " do sleep 1; done"
)


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path, machine=lambda _number, _place: ["sh", "-c", DEAF])


def test_who_overstays_is_switched_off(machines: Machines) -> None:
    """Nothing on it hears of that, and nothing of it is left."""
    machines.boot("m1", b"")
    process = machines.living["m1"].process
    until(
        lambda: "deaf" in machines.console("m1") and len(list(descendants(process.pid))) > 1,
        "the machine",
    )
    below = list(descendants(process.pid))
    began = time.monotonic()
    machines.take("m1", 0.2, 1.5)
    time.sleep(0.8)
    assert machines.runs("m1"), "the power button alone does not end it"
    until(lambda: not machines.runs("m1"), "its end")
    assert 1.4 < time.monotonic() - began < 10
    assert [pid for pid in below if Path(f"/proc/{pid}/exe").exists()] == []


def test_of_a_console_the_end_is_kept(machines: Machines) -> None:
    machines.boot("m1", b"")
    until(lambda: "deaf" in machines.console("m1"), "the machine")
    with machines.living["m1"].console.open("ab") as console:
        console.write(b"x" * CONSOLE_BYTES + b"end")
    said = machines.console("m1", CONSOLE_BYTES)
    assert (len(said), said[-4:]) == (CONSOLE_BYTES, "xend")
    machines.take("m1", 0, 0)
    until(lambda: not machines.runs("m1"), "its end")
