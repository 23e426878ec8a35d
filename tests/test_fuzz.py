"""Inputs made from the schema, good and bad, in all their spellings: a plan or exit 2, never a
traceback, never a secret."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from runner_action import cli, commandline, forges, inputs
from runner_action.errors import InputError
from runner_action.model import ForgeName, ProviderName
from runner_action.providers.aws.plan import plan as aws
from runner_action.providers.azure.plan import plan as azure
from runner_action.providers.gcp.plan import plan as gcp
from runner_action.providers.kubernetes.plan import plan as kubernetes

PLANS: Mapping[ProviderName, Any] = {
    ProviderName.AWS: aws,
    ProviderName.AZURE: azure,
    ProviderName.GCP: gcp,
    ProviderName.KUBERNETES: kubernetes,
}
CANARY = "canary"
PROPERTIES = inputs.schema()["properties"]
# Neither an argument nor a variable can hold a zero byte.
ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
ODD = st.sampled_from(
    [
        "",
        " ",
        "-1",
        "0",
        "1e9",
        "nan",
        "inf",
        "null",
        "[]",
        "{}",
        "%s",
        "{token}",
        "a" * 3000,
        "true",
        "never",
        "1h 99999999999m",
        "\n",
        "::",
        "=",
        ",",
    ]
)
JOBS: tuple[Mapping[str, str], ...] = (
    {},
    {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "octo/train",
        "GITHUB_RUN_ID": "7",
        "RUNNER_NAME": "hosted",
    },
    {
        "GITLAB_CI": "true",
        "CI_SERVER_URL": "https://gitlab.com",
        "CI_PROJECT_URL": "https://gitlab.com/octo/train",
        "CI_JOB_ID": "7",
        "CI_PROJECT_DIR": "/nowhere",
    },
    {"GITHUB_EVENT_NAME": "workflow_run", "GITHUB_EVENT_PATH": "event.json"},
    {"GITHUB_EVENT_NAME": "workflow_run", "GITHUB_EVENT_PATH": "broken.json"},
    {"GITHUB_EVENT_NAME": "workflow_run", "GITHUB_EVENT_PATH": "list.json"},
)


@dataclass(frozen=True)
class Said:
    """What a user wrote."""

    argv: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)


def good(prop: Mapping[str, Any]) -> st.SearchStrategy[str]:
    """Texts that may well be taken."""
    if "enum" in prop:
        return st.sampled_from([str(word).lower() for word in prop["enum"]])
    if prop["type"] == "boolean":
        return st.sampled_from(["true", "false", "True", "yes", "1"])
    if prop.get("format") == "duration":
        return st.one_of(
            st.integers(-1, 10**7).map(str),
            st.sampled_from(["5m", "1h 30m", "never", "2 days", "90s"]),
        )
    if prop["type"] in ("integer", "number"):
        return st.integers(prop.get("minimum", -1) - 1, prop.get("maximum", 10**6) + 1).map(str)
    if prop["type"] == "array":
        one = st.one_of(
            st.from_regex(prop["items"]["pattern"], fullmatch=True),
            st.sampled_from(prop.get("x-suggest") or ["a=b"]),
        )
        return st.lists(one, min_size=1, max_size=3).map(",".join)
    if prop.get("format") == "repository":
        return st.sampled_from(
            [
                "octo/train",
                "https://github.com/octo/train",
                "git@gitlab.com:octo/train.git",
                "https://forge.test/a/b/c",
            ]
        )
    return st.from_regex(prop["pattern"], fullmatch=True) if "pattern" in prop else ANYTHING


DRESSES = (
    "\u201c{}\u201d",
    "'{}'",
    "\u00a0{}",
    "{}\r",
    "[{}]",
    '["{}"]',
    "- {}\r\n- {}",
    "\ufeff{}",
)
WORDS = (
    " --single",
    "\\",
    " ",
    "# x",
    "\u00a0\u2013single",
    "--noRetry",
    "-single",
    "cml",
    "\u2014",
)


def dressed(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Now and then as web pages, Windows or YAML have it."""
    dress = st.sampled_from(("{}", "{}", "{}", *DRESSES))
    return st.tuples(dress, texts).map(lambda pair: pair[0].replace("{}", pair[1]))


def texts(prop: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if prop.get("writeOnly"):
        return st.one_of(
            ANYTHING.map(lambda text: f"{CANARY}-{text}"),
            st.just(f"-----BEGIN {CANARY} KEY-----\n{CANARY}\n"),
            st.just("infer"),
        )
    every = dressed(st.one_of(good(prop), good(prop), ANYTHING, ODD))
    return every.map(lambda text: text.replace("\0", ""))


@st.composite
def spelled(draw: st.DrawFn) -> Said:
    """Some inputs, each in one of its spellings, mostly with what no launch can do without; and
    now and then a word that is none."""
    names = draw(st.lists(st.sampled_from(sorted(PROPERTIES)), max_size=6))
    needed = [name for name in ("repo", "token", "cloud") if draw(st.integers(0, 5))]
    said = Said(environ=dict(draw(st.sampled_from(JOBS))))
    for name in [*names, *needed]:
        text, prop = draw(texts(PROPERTIES[name])), PROPERTIES[name]
        variables = [
            f"INPUT_{name.upper()}",
            f"CML_RUNNER_{name.upper().replace('-', '_')}",
            *prop.get("x-env", ()),
        ]
        how = draw(st.integers(0, len(variables) + 1))
        if how < 2:
            said.argv.extend([f"--{name}={text}"] if how else [f"--{name}", text])
        else:
            said.environ[variables[how - 2]] = text
    if not draw(st.integers(0, 7)):
        said.argv.append(
            draw(
                st.sampled_from(
                    [
                        f"--tokne={CANARY}",
                        f"{CANARY}-word",
                        f"--workdir={CANARY}",
                        "--",
                        "-x",
                        "runner",
                        *WORDS,
                    ]
                )
            )
        )
    if not draw(st.integers(0, 3)):
        said.argv.insert(
            0, draw(st.sampled_from(["launch", "restart", "cleanup", "runner", "cml", "--"]))
        )
    return said


def planned(said: Said) -> str:
    """What became of it; raises InputError."""
    flags, unknown = commandline.flags_of(said.argv)
    raw = inputs.Raw(flags=flags, environ=said.environ, unknown=unknown)
    if inputs.command_of(raw) == "restart":
        asked, warnings = inputs.parse_restart(raw, FILES.get)
        problems, plan = list(forges.refusals(asked)), None
    else:
        request, warnings = inputs.parse(raw, FILES.get)
        problems = list(forges.refusals(request))
        plan = (
            PLANS[request.cloud.provider](request.cloud) if request.cloud and not problems else None
        )
        assert request.forge in ForgeName
        assert CANARY not in repr(request)
    if problems:
        raise InputError(problems)
    assert CANARY not in " ".join(warnings) + repr(plan)
    return "a plan" if plan else "no cloud"


FILES = {"event.json": "{}", "broken.json": "{", "list.json": "[7]", "./setup.sh": "echo\n"}


@given(spelled())
@example(Said(["--cloud=aws", "--repo=octo/train", f"--token={CANARY}"]))
@example(Said(["--command=0"]))
@example(Said(["--cloud", " ", f"{CANARY}-word"]))
@example(Said(["--cloud-metadata", " ", f"{CANARY}-word"]))
@example(Said(["--cloud-metadata", "a=b", " ", f"{CANARY}-word"]))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_whatever_is_written_gives_a_plan_or_exit_2_and_no_secret(said: Said) -> None:
    outcome = verdict(said)
    event(outcome.partition(":")[0])
    assert CANARY not in outcome
    if outcome.startswith("exit 2") and not any(
        "cleanup" in text for text in [*said.argv, *said.environ.values()]
    ):  # after a launch that has told it
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(said.argv, said.environ)
        told = [
            line
            for line in (out.getvalue() + err.getvalue()).splitlines()
            if not line.startswith("::add-mask::")
        ]
        assert code == 2, told
        assert not [line for line in told if CANARY in line or "Traceback" in line]


def verdict(said: Said) -> str:
    try:
        return planned(said)
    except InputError as error:
        return f"exit 2: {error} {error.hint}"
