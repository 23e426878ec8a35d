"""A sample of the agent's kill matrix, and how its points are found. All of it:
`make agent-matrix`; docs/reliability.md explains it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.matrix.agent import answers, effects
from tests.matrix.agent.points import (
    LASTING,
    Effect,
    Fate,
    Life,
    Point,
    Story,
    fates,
    passes,
    points,
    sample,
    stories,
)
from tests.matrix.agent.sites import BY_CHANCE, UNREACHED, UNREACHED_FUNCTIONS, sites, unreached
from tests.matrix.agent.trial import AGENT

pytestmark = pytest.mark.sandbox
PLAIN = Story("aws", "github", Life.IDLE)
READ = Effect("run: watchdog.read_beat: read ~/heartbeat")
ASKED = Effect("run: forge.Member.ask: request DELETE /api/v3/repos/octo/train/actions/runners/N")


def test_a_sample_of_the_agents_matrix_has_no_problem() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.matrix",
        "--agent",
        "--story=aws github idle$",
        "--only=DELETE .*(503 once|answer lost)|cleanup: .*gone: half",
        "--workers=3",
        "--log",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 points, 0 machines alive past their bound, 0 jobs lost untold" in done.stdout


def test_every_kind_of_effect_and_every_fate_has_points() -> None:
    names = [f"run: module.function: {kind} target" for kind in effects.ERRORS]
    names.append("run: module.function: request GET /")
    found = points({PLAIN: [Effect(name) for name in names]})
    assert {point.fate for point in found} == set(Fate)
    assert {point.effect.kind for point in found} == set(effects.ERRORS)


def test_an_effect_has_its_points_in_the_first_story_that_has_it() -> None:
    other = Story("gcp", "github", Life.TAKEN)
    recorded = {PLAIN: [READ], other: [READ, ASKED]}
    told = Counter(point.story for point in points(recorded))
    assert told == {PLAIN: len(fates(READ)), other: len(fates(ASKED))}
    every = Counter(point.story for point in points(recorded, every=True))
    assert every[other] == len(fates(READ)) + len(fates(ASKED))


def test_only_what_may_be_over_when_tried_again_passes() -> None:
    assert passes(Point(PLAIN, ASKED, Fate.ERROR))
    assert not passes(Point(PLAIN, ASKED, Fate.DOWN))
    assert not passes(Point(PLAIN, READ, Fate.FAILS))
    assert not any(passes(Point(PLAIN, ASKED, fate)) for fate in (*LASTING, Fate.KILLED))


def test_a_sample_is_spread_and_the_same_for_the_same_seed() -> None:
    every = points({PLAIN: [READ, ASKED]})
    assert sample(every, 5, 1) == sample(every, 5, 1)
    assert sorted(sample(every, 1000, 1)) == sorted(every)
    kinds = {point.effect.kind for point in sample(every, len(every) - 1, 1)}
    assert kinds == {"read", "request"}


def test_the_stories_are_all_different_and_the_plain_one_is_the_first() -> None:
    assert stories()[0] == PLAIN
    assert len(set(stories())) == len(stories())


# --- names


@pytest.fixture
def injected(tmp_path: Path) -> effects.Injected:
    settings = {"agent": str(AGENT), "folder": str(tmp_path), "at": None, "once": True}
    return effects.Injected(settings, "run")


@pytest.mark.parametrize(
    ("told", "plain"),
    [
        ("/proc/4711/stat", "/proc/PID/stat"),
        ("GET /i-12f8f1a62b13a7452/latest/meta-data", "GET /MACHINE/latest/meta-data"),
        ("/repos/octo/train/actions/runners/17", "/repos/octo/train/actions/runners/N"),
        ("/var/lib/agent.new/become.py", "/var/lib/agent.new/NAME.py"),
        ("two\n  lines", "two lines"),
        ("~/runner.log after 2026-11-28 14:09:09Z: Listening", "~/runner.log after Listening"),
        (
            '~/runner.log after {"msg":"Starting runner for http://h with token abf747f ..."}',
            "~/runner.log after Starting runner for http://h with token TOKEN ...",
        ),
        ('~/runner.log after {"msg":"Job succeeded","job":7}', "~/runner.log after Job succeeded"),
    ],
)
def test_an_effect_has_the_same_name_in_every_life(
    injected: effects.Injected, told: str, plain: str
) -> None:
    assert injected.plain(told) == plain


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["python3", "-m", "agent", "run"], "run"),
        (["python3", "-m", "agent.ending", "gcp"], "ending"),
        (["python3", "-c", "pass"], ""),
    ],
)
def test_only_programs_of_the_agent_have_effects(argv: list[str], program: str) -> None:
    assert effects.program_of(argv) == program


def test_what_happens_once_happens_once_in_a_life(tmp_path: Path) -> None:
    settings = {"agent": str(AGENT), "folder": str(tmp_path), "at": ["x", "y"], "once": True}
    processes = [effects.Injected(settings, "run") for _ in range(2)]
    assert [process._comes() for process in processes] == [True, False]


# --- what happens


def test_half_of_an_answer_is_an_answer_that_was_cut() -> None:
    whole = answers.canned(200, "OK", "Content-Length: 10\r\n", b"0123456789")
    half = answers.half_of(whole)
    assert half.status == 200
    with pytest.raises(Exception, match=r"IncompleteRead\(5 bytes read, 5 more expected\)"):
        half.read()


def test_a_disk_that_becomes_full_has_half_of_what_was_written() -> None:
    file = io.StringIO()
    with pytest.raises(OSError, match="No space left"):
        effects.Full(file).write("0123456789")
    assert file.getvalue() == "01234"


@pytest.mark.parametrize(
    ("fate", "more"), [("twice", b"second\n"), ("noise", effects.NOISE + b"\n")]
)
def test_a_line_comes_again_or_another_one(
    injected: effects.Injected, tmp_path: Path, fate: str, more: bytes
) -> None:
    file = tmp_path / "runner.log"
    file.write_bytes(b"first\nsecond\nhal")
    assert effects.last_line(injected, str(file)) == "second"
    file.write_bytes(b"first\nsecond\n")
    effects.add_line(injected, str(file), fate)
    assert file.read_bytes() == b"first\nsecond\n" + more


TELLS = """
import json, sys
from runner_action.agent.__main__ import say_on_console
from tests.matrix.agent import effects
effects.inject(effects.Injected(json.loads(sys.argv[1]), "run"))
say_on_console(())("online")
"""


def test_a_line_that_the_agent_says_is_an_effect(tmp_path: Path) -> None:
    settings = {"agent": str(AGENT), "folder": str(tmp_path), "at": None, "once": True}
    command = [sys.executable, "-c", TELLS, json.dumps(settings)]
    subprocess.run(command, check=True, cwd=AGENT.parents[1])
    assert (tmp_path / "effects").read_text() == "run: __main__.write_line: say online\n"


READS = """
import json, pathlib, sys
from runner_action.agent.process import Tail
from tests.matrix.agent import effects
effects.inject(effects.Injected(json.loads(sys.argv[1]), "run"))
tail = Tail(pathlib.Path(sys.argv[2]))
print(*(tail.lines() for _ in range(3)))
"""


@pytest.mark.parametrize(
    ("fate", "seen"),
    [
        ("fails once", "[] ['first', 'second'] []"),
        ("half once", "['first'] ['second'] []"),
        ("twice", "['first', 'second', 'second'] [] []"),
    ],
)
def test_lines_of_the_runner_are_an_effect_at_each_look(
    tmp_path: Path, fate: str, seen: str
) -> None:
    (tmp_path / "jobs").write_text("first\nsecond\n")
    lines = "run: process.Tail.lines: lines ~/jobs after second"
    settings = {"agent": str(AGENT), "folder": str(tmp_path), "at": [lines, fate], "once": True}
    command = [sys.executable, "-c", READS, json.dumps(settings), str(tmp_path / "jobs")]
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT.parents[1])}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=path
    )
    assert done.stdout.strip() == seen
    known = (tmp_path / "effects").read_text().splitlines()
    assert known == ["run: process.Tail.lines: read ~/jobs", lines]


# --- the source


@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        ("path.write_text('x')", ["write"]),
        ("path.open('rb')", ["read"]),
        ("os.open(path, os.O_NONBLOCK)", ["read"]),
        ("os.pread(file, 9, 0)", ["lines"]),
        ("open(path, 'ab')", ["write"]),
        ("fresh.replace(path)", ["change"]),
        ("text.replace('a', 'b')", []),
        ("dataclasses.replace(state, at=1)", []),
        ("subprocess.run(argv)", ["start"]),
        ("self.run(argv)", []),
        ("urllib.request.urlopen(url)", ["request"]),
        ("opener.open(request, timeout=9)", ["request"]),
        ("os.write(1, line)", ["say"]),
        ("os.write(pipe, key)", []),
        ("os.kill(pid, 9)", ["signal"]),
    ],
)
def test_an_effect_is_found_in_the_source(call: str, kinds: list[str]) -> None:
    found = list(sites("m", f"class C:\n def f(self):\n  {call}"))
    assert found == [("m.C.f", kind) for kind in kinds]


def test_an_effect_that_no_story_reaches_is_told(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("def f(path):\n path.unlink()\n return path.read_text()\n")
    reached = [Effect("run: new.f: read ~/x")]
    told = [site for site in unreached(tmp_path, reached) if site.startswith("new")]
    assert told == ["new.f: change"]


def test_what_is_listed_as_unreached_is_there() -> None:
    places = {
        place for file in AGENT.glob("*.py") for place, _ in sites(file.stem, file.read_text())
    }
    assert {*UNREACHED_FUNCTIONS, *BY_CHANCE} <= places
    assert set(UNREACHED) <= {place.partition(".")[0] for place in places}
