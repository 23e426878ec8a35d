"""Launches of one step: each has a key of its own, whatever became of the others."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner_action.ci import job
from runner_action.ci.ordinals import ORDINALS, Entry, Ordinals, State
from runner_action.inputs import Raw, parse
from runner_action.model import Run, Secret
from runner_action.naming import base_name, beginning_of
from runner_action.request import LaunchRequest
from runner_action.runners.group import groups_of
from runner_action.runners.reuse import is_of_launch
from runner_action.runners.siblings import leftovers_of

GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "7", "GITHUB_ACTION": "__run"}
GITLAB = {"GITLAB_CI": "true", "CI_JOB_ID": "7", "CI_SERVER_URL": "https://gitlab.example"}
ENDS = ("online", "rolled back", "killed", "killed early", "under way")
TOKEN = Secret("canary-token")


def environ_of(ci: str, folder: Path) -> Mapping[str, str]:
    """A terminal has no folder that its launches share."""
    checkout = folder / "checkout"
    checkout.mkdir(exist_ok=True)
    return {
        "github": {**GITHUB, "RUNNER_TEMP": str(folder)},
        "gitlab": {**GITLAB, "CI_PROJECT_DIR": str(checkout)},
        "terminal": {},
    }[ci]


class History:
    """Launches of one step, each of which ends in one of ENDS."""

    def __init__(self, environ: Mapping[str, str], requested: str | None) -> None:
        self.environ = environ
        self.requested = requested
        self.running: list[Ordinals] = []
        self.swept: list[str] = []

    def launch(self, end: str) -> str:
        """The name of its runner."""
        first = job.run_of(self.environ, TOKEN)
        ordinals = job.ordinals_of(self.environ, first)
        name = base_name(self.requested, first.nth(ordinals.take()))
        for entry in ordinals.killed():
            self.swept += entry.names
            ordinals.note(State.DELETED, ordinal=entry.ordinal)
        if end != "killed early":
            ordinals.remember([name])
        if end == "online":
            ordinals.succeeded()
        elif end == "rolled back":
            ordinals.remember([])
        if end == "under way":
            self.running.append(ordinals)
        else:
            ordinals.close()
        return name

    def left(self) -> set[str]:
        """What the cleanup after the job looks for."""
        first = job.run_of(self.environ, TOKEN)
        entries = job.ordinals_of(self.environ, first).left()
        stored = {entry.ordinal: entry.names for entry in entries}
        return {name for one in leftovers_of(first, [], stored) for name in one.names or ()}


@pytest.mark.parametrize("requested", [None, "train"])
@pytest.mark.parametrize("ci", ["github", "gitlab", "terminal"])
def test_every_launch_of_a_step_has_a_name_of_its_own(
    ci: str, requested: str | None, tmp_path: Path
) -> None:
    """A launch that created nothing leaves its name to the next. What a killed one created is swept
    once, by the next launch of the step; the rest is left to the cleanup."""
    for number, ends in enumerate(itertools.product(ENDS, repeat=3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        history = History(environ_of(ci, folder), requested)
        names = [history.launch(end) for end in ends]
        created = [name for name, end in zip(names, ends, strict=True) if end != "killed early"]
        assert len({*created}) == len(created), ends
        if ci != "terminal":
            killed = [name for name, end in zip(names, ends, strict=True) if end == "killed"]
            last = [names[-1]] if ends[-1] == "killed" else []
            assert sorted(history.swept) == sorted(set(killed) - set(last)), ends
            ended = {name for name, end in zip(names, ends, strict=True) if end == "rolled back"}
            assert history.left() == {*created} - ended - {*history.swept}, ends
        for ordinals in history.running:
            ordinals.close()


def test_steps_whose_variables_are_all_the_same(tmp_path: Path) -> None:
    """Jobs of a matrix that one self-hosted runner runs: GitHub empties the folder in between."""
    names = []
    for _ in range(2):
        names.append(History(environ_of("github", tmp_path), None).launch("online"))
        for path in tmp_path.glob("cml-runner-*"):
            path.unlink()
    assert len({*names}) == 2


@pytest.mark.parametrize(
    "word", ["", "{", "[]", '{"state": "else", "runners": []}', '{"state": 1}']
)
def test_a_file_of_others_is_passed_over(word: str, tmp_path: Path) -> None:
    ordinals = Ordinals(tmp_path, "key")
    own = ordinals.take()
    (file,) = tmp_path.iterdir()
    file.write_text(word)
    later = Ordinals(tmp_path, "key")
    assert later.take() != own
    assert (later.killed(), later.left()) == ([], [])


def test_without_a_folder_ordinals_differ_too() -> None:
    for folder in (None, Path("/proc/nothing")):
        ordinals = Ordinals(folder, "key")
        assert len({ordinals.take() for _ in range(3)}) == 3
        ordinals.remember(["name"])
        assert (ordinals.left(), ordinals.killed()) == ([], [])


def test_an_ordinal_that_is_in_use_is_drawn_again(tmp_path: Path) -> None:
    drawn = iter([4, 4, 6])
    first, second = (Ordinals(tmp_path, "key", lambda _: next(drawn)) for _ in range(2))
    assert (first.take(), second.take()) == (5, 7)


CHILD = """
import sys, time
from pathlib import Path
from runner_action.ci.ordinals import Ordinals
ordinals = Ordinals(Path(sys.argv[1]), "key")
print(ordinals.take(), flush=True)
ordinals.remember(["name"])
time.sleep(60)
"""


def test_processes_at_once_and_one_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    taken = [child.stdout.readline().strip() for child in children if child.stdout]
    assert len({*taken}) == 3
    assert Ordinals(tmp_path, "key").killed() == []
    for child in children:
        child.kill()
        child.communicate()
    killed = Ordinals(tmp_path, "key").killed()
    assert {str(entry.ordinal) for entry in killed} <= {*taken}
    assert all(entry == Entry(entry.ordinal, State.CREATED, ("name",)) for entry in killed)


def request(*argv: str) -> LaunchRequest:
    flags = {word.partition("=")[0][2:]: [word.partition("=")[2]] for word in argv}
    words = {"cloud": ["aws"], "repo": ["octo/train"], "token": ["canary"], "labels": ["cml"]}
    return parse(Raw(flags={**words, **flags}, environ={}, unknown=[]), lambda _: None)[0]


def test_the_names_of_launches_that_request_the_same_name() -> None:
    """In two runs, and twice in a step, for one runner and for several, they differ; each begins
    with the name, and all are within the limit that clouds set to names."""
    for name, count in itertools.product((None, "train", "a" * 50, "a" * 40 + "-b"), (1, 2)):
        words = [f"--count={count}", *([f"--name={name}"] if name else [])]
        runs = [
            run.nth(ordinal)
            for run in (
                Run(derived_name=f"cml-{key[:10]}", key=key, title="")
                for key in ("0" * 64, "1" * 64)
            )
            for ordinal in range(3)
        ]
        chosen = [
            [group.identity.name for group in groups_of(request(*words), run, False)]
            for run in runs
        ]
        every = [one for names in chosen for one in names]
        assert len({*every}) == len(every) == 6 * count
        assert all(one.startswith(beginning_of(name or "cml-")) for one in every)
        for run, names in zip(runs, chosen, strict=True):
            base = base_name(name, run)
            assert len(base) <= 50
            assert all(is_of_launch(one, base) for one in names)


def test_a_name_that_was_remembered_leads_to_its_launch() -> None:
    """Where no ordinals are shared, as in the step after a container."""
    first = Run(derived_name="cml-0123456789", key="0" * 64, title="")
    for requested in (None, "train"):
        names = [f"{base_name(requested, first.nth(number))}-1" for number in (2, ORDINALS - 1)]
        left = leftovers_of(first, [*names, "of-others"], {})
        assert [(one.run.ordinal, list(one.names or ())) for one in left] == [
            (2, [names[0]]),
            (ORDINALS - 1, [names[1]]),
        ]
    assert leftovers_of(first, [], {}) == []
