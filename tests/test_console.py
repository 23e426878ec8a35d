"""What the agent logged, read back from a console full of other things."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from runner_action.runners import console

TEXT = """[    3.1] systemd[1]: Started cml-runner.service
cml-runner: {"stage": "agent", "t": 1.0, "name": "cml-1"}
[    9.2] python3[612]: cml-runner: {"stage": "downloaded", "t": 5.0}
cml-runner: {"stage": "onl
cml-runner: {"stage": "failed", "t": 6.0, "why": "start-up failed: no space left"}
"""


def test_stages_in_order_and_halves_passed_over() -> None:
    assert [line["stage"] for line in console.entries(TEXT)] == ["agent", "downloaded", "failed"]


def test_failure() -> None:
    assert console.failure(TEXT) == "start-up failed: no space left"
    assert console.failure(TEXT.replace("failed", "online")) is None
    assert console.failure("") is None


@pytest.mark.parametrize(
    ("entry", "seconds", "missing"),
    [
        ('"seconds": 14.2', 14.2, ""),
        ('"seconds": 14.2, "why": null', 14.2, ""),
        ('"seconds": 0.4, "why": "exit code 3: neither apt-get nor dnf: git"', 0.4, "neither apt-"),
        ('"seconds": 600, "why": "timed out after 600 s: "', 600, "timed out"),
    ],
)
def test_what_was_installed(entry: str, seconds: float, missing: str) -> None:
    equipped = console.equipped(TEXT + f'cml-runner: {{"stage": "equipped", {entry}}}')
    assert equipped
    assert equipped.seconds == seconds
    assert equipped.missing.startswith(missing)
    assert bool(equipped.missing) is bool(missing)
    assert console.equipped(TEXT) is None


WAITS = 'cml-runner: {"stage": "waiting", "why": "registration: HTTP 503"}\n'


def test_how_far_a_machine_came_and_what_it_last_tried_in_vain() -> None:
    assert console.progress("") == "without any output on its console so far"
    assert console.progress("[    3.1] systemd[1]: Started.") == "before its agent had started"
    downloaded = TEXT.partition('cml-runner: {"stage": "onl')[0]
    assert console.progress(downloaded) == "after unpacking the runner program"
    assert console.progress(downloaded + WAITS).endswith(
        "program (last failed attempt: registration: HTTP 503)"
    )
    joined = downloaded + WAITS + 'cml-runner: {"stage": "configured"}'
    assert console.progress(joined) == "after registering"
    assert console.progress(joined + "\n" + WAITS).endswith(
        "(last failed attempt: registration: HTTP 503)"
    )


def test_tail() -> None:
    assert console.tail(TEXT, 1).endswith('no space left"}')


@pytest.mark.parametrize(
    ("stage", "facts", "level", "text"),
    [
        (
            "job-started",
            {"job": "train of run 7, attempt 1"},
            logging.INFO,
            "Job train of run 7, attempt 1 started.",
        ),
        ("leaving", {"why": "asked to stop", "job": None}, logging.INFO, "Leaving: asked to stop."),
        ("failed", {"why": "registration: 404"}, logging.ERROR, "Failed: registration: 404."),
        ("resumed", {"phase": "busy", "more": 1}, logging.DEBUG, "resumed: phase busy, more 1"),
    ],
)
def test_what_the_agent_says_as_a_sentence(
    stage: str, facts: dict[str, object], level: int, text: str
) -> None:
    assert console.sentence(stage, facts) == (level, text)


def test_every_sentence_fits_what_the_agent_says() -> None:
    """The agent logs each stage somewhere, with the facts that its sentence shows."""
    agent = Path(console.__file__).parents[1] / "agent"
    calls = [
        node
        for file in agent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    logged: dict[str, set[str]] = {}
    for call in calls:
        stages = [
            word.value
            for argument in call.args[:1]
            for word in ast.walk(argument)
            if isinstance(word, ast.Constant)
        ]
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "say":
            for stage in stages:
                logged.setdefault(str(stage), set()).update(
                    str(keyword.arg) for keyword in call.keywords
                )
    for stage, text in {**console.SENTENCES, **console.WARNINGS}.items():
        assert stage in logged, stage
        assert set(re.findall(r"{(\w+)}", text)) <= logged[stage], stage
