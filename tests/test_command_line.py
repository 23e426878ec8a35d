"""The words of a command line: CML's spellings, lists, and what a shell or a web page leaves."""

from __future__ import annotations

import pytest

from runner_action import commandline, inputs
from runner_action.errors import InputError
from runner_action.inputs.words import arrange
from tests.test_inputs import help_of

PROPERTIES = inputs.schema()["properties"]
LISTS = [name for name, prop in PROPERTIES.items() if prop["type"] == "array"]
PLACE = "a backslash must be the last character of its line"


@pytest.mark.parametrize("ending", [[], ["--"]])
@pytest.mark.parametrize(
    "beginning",
    [
        *([], ["launch"], ["runner"], ["runner", "launch"], ["cml", "runner"]),
        *(["cml", "runner", "launch"], ["cml-runner"], ["cml-runner", "launch"], ["--"]),
        *(["runner", "--"], ["cml", "runner", "--"], ["launch", "--"]),
    ],
)
def test_beginnings_of_cml(beginning: list[str], ending: list[str]) -> None:
    argv = [*beginning, "--cloud=aws", "--single", *ending]
    flags, unknown = commandline.flags_of(argv)
    assert flags.pop("command", ["launch"]) == ["launch"]
    assert (flags, unknown) == ({"cloud": ["aws"], "single": ["true"]}, [])


@pytest.mark.parametrize("name", LISTS)
def test_every_list_takes_the_words_behind_it(name: str) -> None:
    """As CML's parser, yargs, does: https://github.com/yargs/yargs-parser#greedy-arrays"""
    for argv in ([f"--{name}", "a=1", "b=2", "--single"], [f"--{name}=a=1", "b=2", "--single"]):
        flags, unknown = commandline.flags_of(["launch", *argv])
        assert (flags[name], unknown) == (["a=1", "b=2"], [])


def test_a_list_takes_no_command() -> None:
    _, unknown = commandline.flags_of(["--labels", "gpu", "launch"])
    assert unknown == ["the 3rd word, after `--labels`, belongs to no flag; write `--flag=value`"]


@pytest.mark.parametrize(
    "written",
    [
        *("--cloud-type", "\u2013cloud-type", "\u2014cloud-type", "\u2212\u2212cloud-type"),
        *("--cloud\u2011type", "--cloudType", "--cloud_type", "\u00a0--cloud-type"),
        *("--Cloud-Type", "--cloud\u2013type"),
    ],
)
def test_a_flag_as_it_is_pasted(written: str) -> None:
    for argv in ([f"{written}=m"], [written, "m"], [f"{written}\u00a0m"]):
        assert commandline.flags_of([*argv, "--single"]) == (
            {"cloud-type": ["m"], "single": ["true"]},
            [],
        )


def test_flags_that_only_no_break_spaces_part() -> None:
    flags, unknown = commandline.flags_of(["--cloud=aws\u00a0--single\u00a0\u2013\u2013labels=a"])
    assert (flags, unknown) == ({"cloud": ["aws"], "single": ["true"], "labels": ["a"]}, [])


@pytest.mark.parametrize("flag", ["--noRetry", "--no-retry", "--noRetry=true", "--no_retry"])
def test_no_retry_as_it_worked_in_cml(flag: str) -> None:
    assert commandline.flags_of([flag]) == ({"no-retry": ["true"]}, [])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--cloud", "aws", " "], f"the 3rd word, after `--cloud`, is blank: {PLACE}"),
        (["--cloud=aws", "\r"], f"the 2nd word, after `--cloud`, is blank: {PLACE}"),
        (["--single", " "], f"the 2nd word, after `--single`, is blank: {PLACE}"),
        (["--labels", "a", "\\"], f"the 3rd word, after `--labels`, is a backslash: {PLACE}"),
        (["--labels", "#", "b"], f"the 2nd word, after `--labels`, begins with `#`: {PLACE}"),
        (["a", " --single"], f"the 2nd word begins with a space: {PLACE}"),
        (
            ["launch", "--cloud=aws", "x"],
            "the 3rd word, after `--cloud`, belongs to no flag; write `--flag=value`",
        ),
        (
            ["launch", "x", "--"],
            "the 2nd word belongs to no flag; write `--flag=value`",
        ),
        (
            ["cml", "--", "runner", "--single", "x", "y"],
            "the 6th word, after `--single`, belongs to no flag; write `--flag=value`",
        ),
        (
            ["cml", "runner", "x"],
            "the 3rd word belongs to no flag; write `--flag=value`",
        ),
        (["lanch"], "the 1st word is not a command; did you mean `launch`?"),
        (["workflow", "rerun"], "CML's `workflow rerun` is now `cml-runner restart --run-id=ID`"),
        (["cml", "ci"], "`ci` is a command of CML; cml-runner has those of `cml runner` only"),
    ],
)
def test_a_word_that_belongs_to_no_flag_is_described(argv: list[str], sentence: str) -> None:
    try:
        _, unknown = commandline.flags_of(argv)
    except InputError as error:
        unknown = list(error.problems)
    assert sentence in unknown


def test_the_text_of_such_a_word_is_never_shown() -> None:
    for place in range(1, 24):
        argv = ["--single"] * (place - 1) + ["--cloud=aws", "canary"]
        (sentence,) = arrange(argv, ()).strays
        assert "canary" not in sentence
        ending = {1: "st", 2: "nd", 3: "rd"}.get((place + 1) % 10, "th")
        ending = "th" if place + 1 in (11, 12, 13) else ending
        assert sentence.startswith(f"the {place + 1}{ending} word")


SECRETS = [name for name, prop in PROPERTIES.items() if prop.get("writeOnly")]


@pytest.mark.parametrize("secret", ["-canary", "a\u00a0--canary", "--canary=x", "\u2013canary"])
@pytest.mark.parametrize("flag", SECRETS)
def test_a_secret_that_looks_like_a_flag_stays_whole(flag: str, secret: str) -> None:
    for argv in ([f"--{flag}={secret}"], [f"--{flag}", secret]):
        flags, unknown = commandline.flags_of([*argv, "--single"])
        assert (flags, unknown) == ({flag: [secret], "single": ["true"]}, [])


@pytest.mark.parametrize("secret", ["-canary", "a\u00a0--canary"])
def test_a_secret_behind_a_mistyped_flag_is_not_shown(secret: str) -> None:
    for argv in ([f"--tokne={secret}"], ["--tokne", secret]):
        flags, unknown = commandline.flags_of([*argv, "--single"])
        assert (flags, len(unknown)) == ({"single": ["true"]}, 1)
        assert unknown[0].startswith("--tokne=")


def test_a_secret_that_is_missing_takes_no_flag() -> None:
    with pytest.raises(InputError, match="--token: expected one argument"):
        commandline.flags_of(["--token", "--single"])


def test_nothing_is_left_of_empty_words() -> None:
    flags, unknown = commandline.flags_of(["--cloud=aws", "", "--labels", "", ""])
    assert (flags, unknown) == ({"cloud": ["aws"], "labels": ["", ""]}, [])


def test_a_single_hyphen() -> None:
    raw = inputs.Raw(flags={}, environ={}, unknown=commandline.flags_of(["-cloud=aws"])[1])
    with pytest.raises(InputError) as caught:
        inputs.parse(raw, lambda _: None)
    assert caught.value.problems[0] == "-cloud is not a flag of cml-runner; write `--cloud`"


def test_help_behind_cmls_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: cml-runner launch " in help_of(capsys, "runner")
