"""The embedded GitLab makes pipelines as GitLab does: what is expanded when, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner_action.sandbox.forges.gitlab import ci as gitlab_ci
from runner_action.sandbox.forges.gitlab import variables as gitlab_variables
from runner_action.sandbox.forges.gitlab.ci import ConfigError, Definition, Pipelines
from runner_action.sandbox.forges.gitlab.variables import NEVER_IN_TAGS, Project, Values
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.forges.memory import Forge
from tests.shipped import released

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "gitlab-component"
TEMPLATE = released(COMPONENT / "templates/launch-runner.yml")
PROJECT = Project("https://gitlab.example:8443/git", 5, "octo/train")


# --- how GitLab does it


def in_tags(tag: str, **given: str) -> str:
    return gitlab_variables.in_tags(tag, {**PROJECT.at_creation(3, "train"), **given})


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("x-$CI_PIPELINE_IID", "x-3"),
        ("$CI_PROJECT_ID-$CI_PIPELINE_IID", "5-3"),
        ("${OURS}b-%OURS%-$OURS", "ab-a-a"),
        ("$NESTED", "$OURS"),
        ("$UNKNOWN ${UNKNOWN} $1 $$", "$UNKNOWN ${UNKNOWN} $1 $$"),
    ],
)
def test_a_tag_is_expanded_once_with_what_is_there_by_then(written: str, made: str) -> None:
    assert in_tags(written, OURS="a", NESTED="$OURS") == made


@pytest.mark.parametrize("form", ["${}", "${{{}}}", "%{}%"])
@pytest.mark.parametrize("name", NEVER_IN_TAGS)
def test_what_is_not_there_yet_stays_as_it_is_written(name: str, form: str) -> None:
    assert in_tags(form.format(name)) == form.format(name)


def test_an_included_address_has_only_what_the_project_has() -> None:
    found = gitlab_variables.in_include("$CI_SERVER_FQDN/a/$CI_PIPELINE_IID", PROJECT.variables)
    assert found == "gitlab.example:8443/a/"


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("$OTHER-$CI_PIPELINE_ID", "3-73"),
        ("x$SELF", "x"),
        ("a$NOBODY-%OTHER%", "a-%OTHER%"),
        ("$CI_JOB_ID", "9"),
        ("<$1$?$#$@$!$*$0${OTHER:-a}$$>", "<$>"),
        ("$(date) ${OTHER} $", "$(date) 3 $"),
    ],
)
def test_a_running_job_has_all_variables(written: str, made: str) -> None:
    known = {**PROJECT.at_creation(3, "launch"), **PROJECT.persisted(73, 9)}
    given = {"SELF": written, "OTHER": "${CI_PIPELINE_IID}"}
    assert gitlab_variables.at_run_time(given, known)["SELF"] == made


def including(address: str = "$CI_SERVER_FQDN/org/one@1", **inputs: object) -> dict[str, Any]:
    return {"include": [{"component": address, "inputs": inputs}]}


def job(**words: object) -> dict[str, Any]:
    return {"train": {"script": ["x"], **words}}


REFUSED = {
    "an input that the component lacks": (including(cluod="aws"), "unknown .* cluod"),
    "a value that is no text": (including(count=4), "`count` .* not a string"),
    "a default that no job can have": ({"default": {"rules": []}, **job()}, "unknown .* rules"),
    "an inheritance of no default": (job(inherit={"default": ["rules"]}), "unknown .* rules"),
    "a value that is no option": (including(single="yes"), "not in the list of allowed"),
    "no version": (including("$CI_SERVER_FQDN/org/one"), "content not found"),
    "nothing yet": (including("$CI_PIPELINE_IID$CI_SERVER_FQDN/org/one@$CI_JOB_ID"), "not found"),
    "a job that is not there": (job(needs=["launch"]), "needs `launch`"),
    "a word that is no keyword": (job(tag=["a"]), "unknown keywords: tag"),
    "too many tags": (job(tags=list(map(str, range(50)))), "less than the limit of 50"),
}


@pytest.mark.parametrize(
    ("inherit", "kept"),
    [
        ({}, {"cache", "tags"}),
        ({"default": True}, {"cache", "tags"}),
        ({"default": ["tags"]}, {"tags"}),
        ({"default": False}, set()),
    ],
)
def test_a_job_has_the_defaults_that_it_inherits(inherit: Definition, kept: set[str]) -> None:
    defaults = {"tags": ["a"], "cache": {"key": "a"}, "timeout": "1h"}
    own = {"image": "own", **({"inherit": inherit} if inherit else {})}
    got = gitlab_ci.with_defaults("train", own, {**defaults, "image": "of all"})
    assert got["image"] == "own"
    assert got.keys() & defaults.keys() == kept


@pytest.mark.parametrize(
    ("inherit", "kept"),
    [({}, {"A", "B"}), ({"variables": ["B"]}, {"B"}), ({"variables": False}, set())],
)
def test_a_job_has_the_variables_that_it_inherits(inherit: Definition, kept: set[str]) -> None:
    definition = {"variables": {"A": "a", "B": "b"}, **job(inherit=inherit)}
    (planned,) = pipelines().plan(definition, 1)
    assert planned.variables.keys() == kept


def test_an_input_keeps_its_type_where_it_is_the_whole_value() -> None:
    template = (
        "spec: {inputs: {a: {type: array}, b: {default: x}}}\n---\n"
        "'$[[ inputs.b ]]': {rules: '$[[ inputs.a ]]', script: ['echo $[[ inputs.b ]]']}\n"
    )
    rules = [{"if": "$A"}]
    made = gitlab_ci.interpolated(template, {"a": rules})
    assert made == {"x": {"rules": rules, "script": ["echo x"]}}
    with pytest.raises(ConfigError, match="`a` input: provided value is not an array"):
        gitlab_ci.interpolated(template, {"a": "on_success"})


def pipelines() -> Pipelines:
    return Pipelines(Forge(), PROJECT, {"gitlab.example:8443/org/one": TEMPLATE})


@pytest.mark.parametrize("case", REFUSED)
def test_a_definition_that_gitlab_refuses_makes_no_pipeline(case: str) -> None:
    definition, why = REFUSED[case]
    with pytest.raises(ConfigError, match=why):
        pipelines().plan(definition, 1)


def test_a_job_without_needs_waits_for_the_stages_before() -> None:
    two = {"b": {"script": ["x"], "stage": "test"}, "a": {"script": ["x"], "stage": "build"}}
    planned = pipelines().plan({**two, "c": {"script": ["x"], "needs": []}}, 1)
    assert [(one.name, one.needs) for one in planned] == [("a", ()), ("b", ("a",)), ("c", ())]


def test_a_job_gets_its_variables_by_their_strength() -> None:
    """Settings before the job's own, those before all jobs'; some are not expanded."""
    given = {"JOB": "$ALL", "RAW": {"value": "$ALL", "expand": False}, "STRONG": "job"}
    definition = {"variables": {"ALL": "a", "JOB": "all"}, "launch": {"variables": given}}
    forge, settings = Forge(), {"STRONG": "settings"}
    told: dict[str, str] = {}

    def hosted(_: Job, variables: Values) -> str:
        told.update(variables)
        return "success"

    run = Pipelines(forge, PROJECT, {}, settings).create(definition, hosted)
    forge.wait(lambda: run.done, "the job")
    assert [told[name] for name in ("JOB", "RAW", "STRONG")] == ["a", "$ALL", "settings"]
    assert (told["CI_PIPELINE_ID"], told["CI_PIPELINE_IID"]) == (str(run.id), str(run.id - 70))
