"""The machine's own words, read back from a console full of other things."""

from __future__ import annotations

from runner_action import console

TEXT = """[    3.1] systemd[1]: Started cml-runner.service
cml-runner: {"stage": "agent", "t": 1.0, "name": "cml-1"}
[    9.2] python3[612]: cml-runner: {"stage": "downloaded", "t": 5.0}
cml-runner: {"stage": "onl
cml-runner: {"stage": "failed", "t": 6.0, "why": "start-up failed: no space left"}
"""


def test_stages_in_order_and_halves_passed_over() -> None:
    assert [line["stage"] for line in console.said(TEXT)] == ["agent", "downloaded", "failed"]


def test_failure() -> None:
    assert console.failure(TEXT) == "start-up failed: no space left"
    assert console.failure(TEXT.replace("failed", "online")) is None
    assert console.failure("") is None


def test_tail() -> None:
    assert console.tail(TEXT, 1).endswith('no space left"}')
