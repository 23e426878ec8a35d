"""No text from elsewhere is a command, a second output, an escape sequence or a page's own markup.

Generated: everything that says something of others' x every kind of console x hostile payloads.
What is written is read as GitHub's runner, GitLab and a browser read it, and must be what it would
be with a harmless word in the payload's place.
"""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from github import GithubException
from gitlab.exceptions import GitlabHttpError
from markdown_it import MarkdownIt

from runner_action import inputs
from runner_action.agent.restart import Job, Run
from runner_action.ci import report
from runner_action.ci.base import MARK_TITLE, Front
from runner_action.ci.cml import cml_line
from runner_action.ci.github import GitHubFront
from runner_action.ci.gitlab import GitLabFront
from runner_action.ci.terminal import TerminalFront
from runner_action.commands import interrupted, reap, status
from runner_action.errors import InputError, RunnerActionError
from runner_action.forges.github.answers import refusal
from runner_action.forges.github.levels import Level
from runner_action.forges.gitlab.errors import translated
from runner_action.model import (
    Identity,
    Instance,
    Launched,
    Placement,
    Plan,
    Pool,
    ProviderName,
    Report,
    Repository,
    Runner,
)
from runner_action.plain import is_plain, lines, plain
from runner_action.request import Reuse
from runner_action.runners import console
from runner_action.runners.reuse import fitting, launched_of
from tests.test_ci import INSTANCE, ONE
from tests.test_launch import request

PAYLOADS = {
    "a command": "::add-mask::cml",
    "a command behind blanks": " \t\u3000::stop-commands::x",
    "behind what nobody sees": "\u200b::add-mask::cml",
    "between what nobody sees": ":\u200d:add-mask::cml",
    "on a line of its own": "0/3 nodes\n::add-mask::cml\n::set-output name=status::x",
    "behind a carriage return": "x\r::add-mask::cml",
    "behind other line ends": (
        "x\u2028::debug::\u2029::debug::\x85::debug::\x0b::debug::\x0c::debug::"
    ),
    "of the older form": "gpu ##[add-mask]cml",
    "of the older form, hidden": "#\u200b#\ufe0f[add-mask]cml",
    "escaped": "x%0A::add-mask::cml%0D##[add-mask]y",
    "an output": "shared\nPIP_INDEX_URL=https://evil.test/\nlabel<<EOF",
    "escape sequences": "\x1b[2J\x1b]8;;https://evil.test\x07\x9b31m\x00\x7f",
    "another direction": "\u202egnp\u2066x",
    "HTML": "<img src=https://evil.test/x onerror=y><script>z</script><!--",
    "pictures and links": (
        "![x](https://evil.test/x) [y](javascript:z) <https://evil.test> https://evil.test"
        " www.evil.test"
    ),
    "out of a cell": "x` | `y` |\n| --- |\n\n# z\n```",
}
REGISTERED = {
    *("add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group"),
    *("internal-set-repo-path", "notice", "remove-matcher", "save-state", "set-env"),
    *("set-output", "stop-commands", "warning"),
}
"""https://github.com/actions/runner/blob/main/src/Runner.Worker/ActionCommandManager.cs"""
SEQUENCES = ("\x1b[31;1m", "\x1b[0m")
"""Ours, for an error at GitLab."""
HARMLESS = "word"
Say = Callable[[str, Front], None]


# --- how others read what we write


def as_dotnet(text: str) -> str:
    """Without what .NET passes over when it compares as a culture does."""
    ignored = ("Cc", "Cf", "Mn", "Me")
    return "".join(each for each in text if unicodedata.category(each) not in ignored)


def command_of(line: str) -> tuple[str, str] | None:
    """As ActionCommand.cs has it: the newer form at the beginning, else the older one anywhere."""
    found = line.lstrip()
    if found.startswith("::") and (end := found.find("::", 2)) > 0:
        name, _, properties = found[2:end].partition(" ")
        if name.lower() in REGISTERED:
            return name, properties
    if (begin := line.find("##[")) >= 0 and (end := line.find("]", begin)) >= 0:
        name, _, properties = line[begin + 3 : end].partition(" ")
        if name.lower() in REGISTERED:
            return name, properties
    return None


def commands_in(text: str) -> list[tuple[str, str]]:
    """All that GitHub's runner would do; it reads lines as .NET does."""
    found = []
    for line in re.split(r"\r\n|\r|\n", text):
        read = [command for command in map(command_of, (line, as_dotnet(line))) if command]
        found += read[:1]
    return found


def unfolded(text: str) -> str:
    """Without the frame in which we show what has several lines, whose word nobody can know."""
    frame = r"::group::(.*)\n::stop-commands::(\w{16})\n((?:.*\n)*?)::\2::\n::endgroup::\n"
    return re.sub(frame, r"\1\n\3", text)


def outputs_in(text: str) -> list[str]:
    """Names of what a file of outputs or variables sets."""
    return [line.partition("=")[0] for line in re.split(r"\r\n|\r|\n|\u2028|\x85", text) if line]


def markup_in(text: str) -> list[str]:
    """Elements of the page that a summary becomes, but code, which holds whatever it likes."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return [name for name in re.findall(r"<(!--|/?\w+)[^>]*>?", html) if name.strip("/") != "code"]


class Heard:
    """A console of a kind, and what others read there."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.out, self.folder = io.StringIO(), folder
        files = ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")
        self.front = self._front(kind, {name: str(folder / name) for name in files})

    def _front(self, kind: str, github: dict[str, str]) -> Front:
        if kind == "github":
            return GitHubFront(github, self.out)
        if kind == "gitlab":
            job = {"CI_PROJECT_DIR": str(self.folder), "CI_JOB_ID": "3"}
            return GitLabFront(job, self.out)
        return TerminalFront(self.out, self.out, as_json=kind == "json")

    def hear(self, say: Say, payload: str) -> None:
        """A refusal is heard too: it is told as an error."""
        try:
            say(payload, self.front)
        except RunnerActionError as error:
            self.front.error(error)

    def file(self, name: str) -> str:
        path = self.folder / name
        return path.read_bytes().decode() if path.exists() else ""

    def check(self, harmless: Heard) -> None:
        told, usual = self.out.getvalue(), harmless.out.getvalue()
        known = {json.dumps(command) for command in map(list, commands_in(unfolded(usual)))}
        # Fewer if it was refused; and refused it is with an error.
        known.add(json.dumps(["error", "title=cml-runner"]))
        found = {json.dumps(command) for command in map(list, commands_in(unfolded(told)))}
        assert found <= known
        shown = told
        for sequence in SEQUENCES:
            shown = shown.replace(sequence, "")
        unseen = {
            each for each in shown if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        }
        assert unseen <= {"\n"}
        for name in ("GITHUB_OUTPUT", "GITHUB_STATE", "cml-runner.env"):
            assert outputs_in(self.file(name)) in (outputs_in(harmless.file(name)), [])
        summary, usual = self.file("GITHUB_STEP_SUMMARY"), harmless.file("GITHUB_STEP_SUMMARY")
        assert markup_in(summary) in (markup_in(usual), [])


# --- all that says something of others'


def logged(level: int, message: str) -> Say:
    def say(payload: str, front: Front) -> None:
        logger = logging.Logger("runner_action")
        logger.addHandler(front.handler())
        logger.log(level, message, payload)

    return say


def subclasses(kind: type[RunnerActionError]) -> Iterator[type[RunnerActionError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from subclasses(one)


def raised(kind: type[RunnerActionError]) -> Say:
    def say(payload: str, front: Front) -> None:
        if issubclass(kind, InputError):
            front.error(InputError([payload], besides=[payload]))
        else:
            front.error(kind(payload, payload))

    return say


def github_refuses(code: int) -> Say:
    def say(payload: str, _: Front) -> None:
        raise refusal(
            GithubException(code, {"message": payload}, {"x-oauth-scopes": payload}),
            payload,
            Level.REPOSITORY,
        )

    return say


def gitlab_refuses(code: int) -> Say:
    def say(payload: str, _: Front) -> None:
        with translated(payload):
            raise GitlabHttpError(payload, code)

    return say


def texts_of(kind: type) -> list[str]:
    return [one.name for one in fields(kind) if one.type == "str"]


def launched(change: Callable[[str], Launched]) -> Say:
    def say(payload: str, front: Front) -> None:
        one, asked = change(payload), request()
        logged(logging.INFO, "%s")(cml_line(one, asked), front)
        found = Report(launched=(one,), tried=("a: yes", "b: no"), stages={"online": 1.0})
        front.done(report.outputs(found.launched), report.summary(found, asked))

    return say


def planned(payload: str, front: Front) -> None:
    rung = Placement(region=payload, spot=True, pools=(Pool(instance_type=payload, zone=payload),))
    plan = Plan(
        places=(),
        instance_types=(payload,),
        architecture="x64",
        image=payload,
        disk_gb=1,
        spots=(True,),
        spot_price=None,
    )
    front.done(
        {"runners": "[]"}, report.summary(Report(launched=(), plan=plan, ladder=(rung,)), request())
    )


def tried(payload: str, front: Front) -> None:
    found = Report(launched=(ONE,), tried=(f"{payload}: {payload}",), stages={"online": 1.0})
    front.done(report.outputs(found.launched), report.summary(found, request()))


def looked_at(change: Callable[[str], tuple[Instance, Runner]]) -> Say:
    """`status` of a machine and its runner; then `reap` of both."""

    def say(payload: str, front: Front) -> None:
        machine, runner = change(payload)
        row = status.Row(
            name=runner.name, state=payload, machine=machine, runner=runner, notes=payload
        )
        front.done({"status": status.as_json([row])}, status.table([row]))
        gone = [reap.Removal(why=payload, machine=machine), reap.Removal(why="w", runner=runner)]
        front.done(*reap.result_of(gone, dry_run=False))
        logged(logging.INFO, "Removed %s.")(str(gone[0]), front)

    return say


RUNNER = Runner(id=1, name="cml-1", labels=frozenset({"cml"}), online=True, busy=False)


def reused(change: Callable[[str], Runner]) -> Say:
    """One that others may name as they like."""

    def say(payload: str, front: Front) -> None:
        found = [
            launched_of(one, request(), 1.0)
            for one in fitting([change(payload)], "cml-1", ("cml",), Reuse.ANY, str.lower)
        ]
        for one in found:
            launched(lambda _, one=one: one)(payload, front)  # type: ignore[misc]

    return say


def restarted(payload: str, front: Front) -> None:
    """A run says everything by itself: names of jobs and runners, and its annotations."""
    job = Job(2, payload, "completed", "failure", f"cml-0123456789-{payload}", ("gpu",))
    mark = (MARK_TITLE, f"{interrupted.MARK}{payload}")
    found = interrupted.find(Run(7, 1, True, 1.0, (job,)), {2: [mark]}, frozenset())
    assert found.interrupted
    front.done({"restarted": ""}, interrupted.jobs_of(found))


def said_by_a_machine(payload: str, front: Front) -> None:
    """Its console's end, and its own word."""
    text = f"{payload}\ncml-runner: {json.dumps({'stage': 'failed', 'why': payload})}"
    logged(logging.ERROR, "Last lines of the console of i-1:\n%s")(console.tail(text), front)
    front.error(RunnerActionError(f"Machine i-1 failed: {console.failure(text)}"))


def said_by_the_agent(payload: str, front: Front) -> None:
    facts = dict.fromkeys(("name", "job", "why", "outcome", "seconds", "attempt", "run"), payload)
    for stage in (*console.SENTENCES, *console.WARNINGS, payload):
        level, text = console.sentence(stage, facts)
        logged(level, "%s")(text, front)


def given(name: str) -> Say:
    """An input of the user's, which may be the title of somebody's pull request."""

    def say(payload: str, front: Front) -> None:
        value = f"pr={payload}" if name == "cloud-metadata" else payload
        flags = {"repo": ["https://github.com/octo/train"], "token": ["t"], "cloud": ["aws"]}
        asked, warnings = inputs.parse(
            inputs.Raw(flags={**flags, name: [value]}, environ={}), lambda _: None
        )
        for warning in warnings:
            logged(logging.WARNING, "%s")(warning, front)
        one = replace(ONE, labels=asked.labels)
        logged(logging.INFO, "%s")(cml_line(one, asked), front)
        front.done(report.outputs([one]), report.summary(Report(launched=(one,)), asked))

    return say


LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
MESSAGES = ("%s", "It said: %s", "Two lines:\n%s")
SOURCES: dict[str, Say] = {
    **{
        f"a record {level} {words!r}": logged(level, words)
        for level in LEVELS
        for words in MESSAGES
    },
    **{f"an error {kind.__name__}": raised(kind) for kind in subclasses(RunnerActionError)},
    **{
        f"GitHub answers {code}": github_refuses(code)
        for code in (401, 403, 404, 409, 422, 429, 500)
    },
    **{f"GitLab answers {code}": gitlab_refuses(code) for code in (401, 403, 404, 500)},
    **{
        f"a launched one's {name}": launched(lambda text, name=name: replace(ONE, **{name: text}))  # type: ignore[misc]
        for name in texts_of(Launched)
    },
    "a launched one's labels": launched(lambda text: replace(ONE, labels=(text, "x"))),
    **{
        f"a new instance's {name}": launched(
            lambda text, name=name: replace(ONE, instance=replace(INSTANCE, **{name: text}))  # type: ignore[misc]
        )
        for name in texts_of(Instance)
    },
    **{
        f"a machine's {name}": looked_at(
            lambda text, name=name: (replace(INSTANCE, **{name: text}), RUNNER)  # type: ignore[misc]
        )
        for name in texts_of(Instance)
    },
    "a runner's name": looked_at(lambda text: (INSTANCE, replace(RUNNER, name=text))),
    "a runner's labels": looked_at(
        lambda text: (INSTANCE, replace(RUNNER, labels=frozenset({text})))
    ),
    "a reused runner's name": reused(
        lambda text: replace(RUNNER, name=text, labels=frozenset({"cml"}))
    ),
    "a reused runner's label": reused(
        lambda text: replace(RUNNER, labels=frozenset({"cml", text}))
    ),
    **{f"the input {name}": given(name) for name in inputs.schema()["properties"]},
    "a plan": planned,
    "a cloud's refusal": tried,
    "a run": restarted,
    "a machine": said_by_a_machine,
    "an agent": said_by_the_agent,
    "a traceback": lambda text, front: front.crash(f"Traceback\n  {text}\nValueError: {text}"),
    "a runner to remember": lambda text, front: front.remember(["cml-1", text]),
}


@pytest.mark.parametrize("kind", ["github", "gitlab", "terminal", "json"])
@pytest.mark.parametrize("source", SOURCES)
def test_it_is_text_wherever_it_is_written(source: str, kind: str, tmp_path: Path) -> None:
    usual = Heard(kind, tmp_path / "usual")
    usual.hear(SOURCES[source], HARMLESS)
    for number, payload in enumerate(PAYLOADS.values()):
        heard = Heard(kind, tmp_path / str(number))
        heard.hear(SOURCES[source], payload)
        heard.check(usual)


def test_the_reader_finds_what_the_runner_would_do() -> None:
    """The judge of the test above can fail."""
    hostile = [
        *(
            "::add-mask::x",
            "  ::ADD-MASK::x",
            "x\n::error title=a::b",
            "x\r::debug::y",
            "\u200b::debug::y",
        ),
        *("x ##[add-mask]y", "##[error]", "#\u200b#[set-output name=a]b"),
    ]
    assert [len(commands_in(text)) for text in hostile] == [1] * len(hostile)
    assert (
        commands_in("x ::add-mask::y") == commands_in("::unknown::x") == commands_in("##[x]") == []
    )
    assert outputs_in("a=1\nb=2") == ["a", "b"]
    assert "img" in markup_in("a <img src=x>")
    assert "a" in markup_in("[x](https://y.test)")


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_what_is_plain_stays_as_it_is(payload: str) -> None:
    assert is_plain(plain(payload))
    assert lines(lines(payload)) == lines(payload)
    assert "\n" not in plain(payload)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train-7",
        "Größe: 5 µm ✓",
        "a::b::c",
        "std::move",
        "# [x]",
        "issue #[7]",
        "日本語 ラベル",
    ],
)
def test_usual_words_are_plain(text: str) -> None:
    assert is_plain(text)


def test_a_name_of_ours_is_no_more_than_that() -> None:
    """Identity, provider and repository of the tests above are words that we make."""
    assert is_plain(Identity(name="cml-1", key="k").token())
    assert all(map(is_plain, ProviderName))
    assert is_plain(Repository(url="https://github.com/octo/train").url)
