"""The embedded world's systemd counts starts as the original does: in a span that begins with the
first of them, whoever asks for them.

https://github.com/systemd/systemd/blob/v257/src/basic/ratelimit.c
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner_action.bootstrap.units import text_of
from runner_action.sandbox.machine.systemd import Systemd
from tests.sandbox.conftest import until

FAILED = "cml-runner-failed.service"
CHECK = f"[Unit]\nOnFailure={FAILED}\n[Service]\nType=oneshot\nExecStart="


class Checks:
    """A machine with our unit that counts failed checks; `offs`: why it was powered off."""

    def __init__(self, folder: Path, factor: float) -> None:
        root = folder / "machines/i-1/root"
        self.units = root / "etc/systemd/system"
        self.units.mkdir(parents=True)
        (self.units / FAILED).write_text(text_of(FAILED))
        self.offs: list[str] = []
        self.systemd = Systemd(root, "python3", factor, "", lambda why, _: self.offs.append(why))

    def check(self, command: str) -> None:
        """One with this command, and what follows from it."""
        (self.units / "check.service").write_text(CHECK + command + "\n")
        before = self.systemd._starts.get(FAILED)
        unit = self.systemd.unit("check.service")
        assert unit
        self.systemd._run_service(unit)
        if command == "false":
            until(lambda: self.offs or self.systemd._starts.get(FAILED) != before, "the count")


def test_the_third_failed_check_ends_the_machine_however_many_are_good(tmp_path: Path) -> None:
    machine = Checks(tmp_path, 1)
    for command in ("false", "true", "true", "false", "true"):
        machine.check(command)
        assert machine.offs == []
    machine.check("false")
    assert machine.offs == [f"{FAILED} was started 2 times"]


def test_failed_checks_are_forgotten_after_ten_minutes(tmp_path: Path) -> None:
    machine = Checks(tmp_path, 0.001)
    for _ in range(2):
        machine.check("false")
        machine.check("false")
        time.sleep(0.7)
    assert machine.offs == []


def test_a_check_that_hangs_has_failed(tmp_path: Path) -> None:
    machine = Checks(tmp_path, 1)
    for _ in range(3):
        machine.check("sleep 5\nTimeoutStartSec=0.1")
    until(lambda: machine.offs, "the end")


@pytest.mark.parametrize(("stop", "again"), [("exit 0", False), ("kill -9 $$$$", True)])
def test_a_deletion_that_is_killed_is_tried_once_more(
    stop: str, again: bool, tmp_path: Path
) -> None:
    machine = Checks(tmp_path, 1)
    unit = text_of("cml-runner-delete.service")
    unit = unit.replace("/usr/bin/python3 -m agent.ending @CLOUD@", f"/bin/sh -c '{stop}'", 1)
    unit = unit.replace("exec /usr/bin/python3 -m agent.ending @CLOUD@", f"touch {tmp_path}/again")
    unit = unit.replace("WorkingDirectory=/var/lib/cml-runner\n", "")
    (machine.units / "delete.service").write_text(unit)
    machine.systemd.start("delete.service")
    until(lambda: machine.systemd.stop("delete.service"), "the unit")
    assert (tmp_path / "again").exists() is again
