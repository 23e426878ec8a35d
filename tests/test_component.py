"""The component in pipelines as people have them, and the rules of GitLab's CI/CD catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from runner_action import inputs
from runner_action.sandbox.forges.gitlab import ci as gitlab_ci
from runner_action.sandbox.forges.gitlab import variables as gitlab_variables
from runner_action.sandbox.forges.gitlab.ci import DEFAULT_KEYWORDS, Pipelines
from runner_action.sandbox.forges.gitlab.variables import Project, Values
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.forges.memory import Forge
from tests.shipped import INCLUDED, ROOT, Definition, including, pipelines, released

FOLDER = ROOT / "gitlab-component"
TEMPLATE = released(FOLDER / "templates/launch-runner.yml")
SPEC = next(yaml.safe_load_all(TEMPLATE))["spec"]["inputs"]
PROPERTIES = inputs.schema()["properties"]
OF_LAUNCHER = sorted(set(SPEC) & set(PROPERTIES))
VERBATIM = [name for name in OF_LAUNCHER if PROPERTIES[name].get("x-verbatim")]
PROJECT = Project("https://gitlab.example", 5, "octo/train")
COMPONENTS = {INCLUDED.replace("$CI_SERVER_FQDN", "gitlab.example"): TEMPLATE}
OF_GITLAB = {"CI_PIPELINE_IID": "3", "OURS": "ours"}


def launch_job(pipeline: Mapping[str, Any], **given: object) -> Mapping[str, Any]:
    """The launch job of a pipeline that includes the component with these inputs."""
    component = {"component": f"{INCLUDED}@1.0.0", "inputs": given}
    read = Pipelines(Forge(), PROJECT, COMPONENTS)
    whole = read.resolved({"include": [component], **pipeline})
    return gitlab_ci.with_defaults("launch-runner", whole["launch-runner"], whole["default"])


# --- defaults of the pipeline

COMES_THROUGH = ("id_tokens", "interruptible", "retry", "tags")
"""What a job needs to find its runner, and what people mean for all jobs."""
DEFAULTS = {
    "after_script": ["echo ended"],
    "artifacts": {"paths": ["models/"]},
    "before_script": ["pip install --requirement requirements.txt"],
    "cache": {"key": "pip", "paths": [".cache/pip"]},
    "hooks": {"pre_get_sources_script": ["git config --global core.autocrlf input"]},
    "id_tokens": {"ID_TOKEN": {"aud": "sts.amazonaws.com"}},
    "image": "python:3.13",
    "interruptible": True,
    "retry": {"max": 2, "when": ["runner_system_failure"]},
    "services": ["postgres:17"],
    "tags": ["hosted"],
    "timeout": "10m",
}


def test_every_default_that_a_pipeline_can_have_is_judged() -> None:
    assert tuple(DEFAULTS) == DEFAULT_KEYWORDS


@pytest.mark.parametrize("keyword", DEFAULT_KEYWORDS)
def test_a_default_for_other_jobs_does_not_change_the_launch(keyword: str) -> None:
    alone = launch_job({"default": {}})
    job = launch_job({"default": {keyword: DEFAULTS[keyword]}})
    inherited = {keyword: DEFAULTS[keyword]} if keyword in COMES_THROUGH else {}
    assert job == {**alone, **inherited}


@pytest.mark.parametrize("keyword", ["before_script", "cache", "services", "tags"])
def test_what_a_pipeline_gives_the_launch_job_itself_is_kept(keyword: str) -> None:
    own = {keyword: DEFAULTS[keyword]}
    job = launch_job({"default": {keyword: ["other"]}, "launch-runner": own})
    assert job[keyword] == DEFAULTS[keyword]


# --- dollar signs

TEXT = (
    "#!/bin/sh\nmount $DEV ${MNT:-/mnt} && echo $1 $? $$ $(date) $CI_PIPELINE_IID > /x; exit $?\n"
)


def arrived(name: str, value: str) -> str:
    """The launcher's variable after GitLab and its runner have read an input's value."""
    written = launch_job({"default": {}}, **{name: value})["variables"]
    variable = written["CML_RUNNER_" + name.upper().replace("-", "_")]
    if isinstance(variable, str):
        return gitlab_variables.at_run_time({"X": variable}, OF_GITLAB)["X"]
    assert variable.keys() == {"value", "expand"}
    assert variable["expand"] is False
    return str(variable["value"])


def test_every_script_and_document_is_verbatim() -> None:
    texts = [name for name in OF_LAUNCHER if PROPERTIES[name].get("format") in TEXTS]
    assert texts == VERBATIM
    assert len(VERBATIM) >= 3


TEXTS = ("script", "document")


@pytest.mark.parametrize("name", VERBATIM)
def test_a_text_arrives_as_it_is_written(name: str) -> None:
    assert arrived(name, TEXT) == TEXT
    assert arrived(name, "") == ""


def test_the_launcher_reads_scripts_as_they_are_written() -> None:
    given = {"cloud": "aws", "cloud-startup-script": TEXT, "checkpoint-script": TEXT}
    told: dict[str, str] = {}

    def hosted(_: Job, variables: Values) -> str:
        told.update(variables)
        return "success"

    forge = Forge()
    component = {"component": f"{INCLUDED}@1.0.0", "inputs": given}
    run = Pipelines(forge, PROJECT, COMPONENTS).create({"include": [component]}, hosted)
    forge.wait(lambda: run.done, "the launch job")
    request, _ = inputs.parse(inputs.Raw({}, {**told, "REPO_TOKEN": "t"}), lambda _: None)
    assert request.cloud
    assert (request.checkpoint_script, request.cloud.startup_script) == (TEXT.strip(), TEXT.strip())


@pytest.mark.parametrize("name", [one for one in OF_LAUNCHER if one not in VERBATIM])
def test_all_else_may_contain_variables(name: str) -> None:
    if "options" not in SPEC[name]:
        assert arrived(name, "a-$CI_PIPELINE_IID-${OURS}") == "a-3-ours"
    assert arrived(name, "") == ""


# --- the rest of the job


def test_rules_are_those_of_the_input() -> None:
    rules = [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"', "when": "manual"}]
    assert launch_job({"default": {}}, rules=rules)["rules"] == rules


def test_without_the_input_only_branches_and_tags_launch() -> None:
    """As `only: [branches, tags]`, which a job without `rules` has, in all pipelines but those with
    `workflow: rules`: no merge request starts a machine unasked.
    https://docs.gitlab.com/ci/yaml/deprecated_keywords/#onlyrefs--exceptrefs"""
    assert launch_job({"default": {}})["rules"] == [{"if": "$CI_COMMIT_BRANCH || $CI_COMMIT_TAG"}]


@pytest.mark.parametrize("strategy", ["", "none", "clone", "fetch"])
def test_there_is_no_checkout_unless_it_is_asked_for(strategy: str) -> None:
    given = {"git-strategy": strategy} if strategy else {}
    variables = launch_job({"default": {}, "variables": {"GIT_STRATEGY": "clone"}}, **given)
    assert variables["variables"]["GIT_STRATEGY"] == (strategy or "empty")


def seconds(time: str) -> int:
    return int(time[:-1]) * {"m": 60, "h": 3600}[time[-1]]


def test_a_launch_that_takes_too_long_is_ended_in_time_to_clean_up() -> None:
    """The script before the job: at the end of the job's time nothing more runs.
    https://docs.gitlab.com/ci/runners/configure_runners/#ensuring-after_script-execution"""
    job = launch_job({"default": {}})
    script = seconds(job["variables"]["RUNNER_SCRIPT_TIMEOUT"])
    after_script = 5 * 60
    assert PROPERTIES["start-timeout"]["maximum"] + 10 * 60 <= script
    assert script + after_script <= seconds(job["timeout"])
    assert job["after_script"] == ["cml-runner cleanup"]


def test_the_job_without_the_component_is_the_same_job() -> None:
    """But for what GitLab 16.0 lacks: `id_tokens` in `default:`."""
    whole = pipelines()["gitlab-component/examples/no-component.yml"]
    example = whole["launch-runner"]
    assert whole["train"]["rules"] == example["rules"]
    job = dict(launch_job({"default": {}}))
    for one in (job, example):
        own = {name: value for name, value in one["variables"].items() if "CML_" not in name}
        one["variables"] = own
    job["inherit"] = {"default": [one for one in job["inherit"]["default"] if one != "id_tokens"]}
    job["image"]["name"] = "ghcr.io/octo/cml-runner:v1"
    assert example == job


# --- the catalog. https://docs.gitlab.com/ci/components/#write-a-component


@pytest.mark.parametrize("name", SPEC)
def test_an_input_says_what_it_is_and_has_a_default_that_it_allows(name: str) -> None:
    rule = SPEC[name]
    assert rule["description"].endswith((".", "`."))
    choices = rule.get("options", [rule["default"]])
    assert rule["default"] in choices
    assert len(choices) <= 50


@pytest.mark.parametrize("name", OF_LAUNCHER)
def test_what_has_choices_offers_them(name: str) -> None:
    prop = PROPERTIES[name]
    words = ["true", "false"] if prop["type"] == "boolean" else prop.get("enum")
    wanted = ["", *(str(word).lower() for word in words)] if words else None
    assert SPEC[name].get("options") == wanted


def test_the_project_has_what_a_catalog_asks_for() -> None:
    assert list(yaml.safe_load_all(TEMPLATE))[1].keys() == {"$[[ inputs.job ]]"}, (
        "no global keyword"
    )
    assert [file.name for file in (FOLDER / "templates").iterdir()] == ["launch-runner.yml"]
    assert (FOLDER / "README.md").read_text("utf-8").startswith("# launch-runner\n")
    own = pipelines()["gitlab-component/.gitlab-ci.yml"]
    releases = [job for job in own.values() if isinstance(job, dict) and "release" in job]
    assert [job["release"]["tag_name"] for job in releases] == ["$CI_COMMIT_TAG"]


def test_its_pipeline_reads_the_component_of_its_commit_and_launches_nothing() -> None:
    own = pipelines()["gitlab-component/.gitlab-ci.yml"]
    (include,) = own["include"]
    assert include["component"].endswith("/$CI_PROJECT_PATH/launch-runner@$CI_COMMIT_SHA")
    job = launch_job({"default": {}}, **include["inputs"])
    assert job["rules"] == [{"when": "never"}]
    assert job["stage"] in own["stages"]


# --- pipelines to copy


def training(pipeline: Definition) -> dict[str, Any]:
    """Jobs that run on a machine of ours."""
    return {
        name: job
        for name, job in pipeline.items()
        if isinstance(job, dict) and "script" in job and "needs" in job
    }


TRAINING = {name: jobs for name, one in pipelines().items() if (jobs := training(one))}


@pytest.mark.parametrize("name", TRAINING)
def test_no_training_ends_with_the_default_time_limit_of_a_project(name: str) -> None:
    """One hour. https://docs.gitlab.com/ci/pipelines/settings/#set-a-limit-for-how-long-jobs-can-run"""
    for job in TRAINING[name].values():
        if any("train.py" in line for line in job["script"]):
            assert job.get("timeout") == "24h"


def test_the_file_that_others_include_is_where_the_page_says() -> None:
    (remote,) = (one for page in including().values() for one in page["include"] if "remote" in one)
    address = "https://gitlab.com/octo/cml-runner/-/raw/1.0.0/"
    assert (FOLDER / remote["remote"].removeprefix(address)).is_file()
    assert set(remote["inputs"]) <= set(SPEC)


def test_all_trainings_are_found() -> None:
    assert {"README.md 2", "gitlab-component/README.md 1"} <= set(TRAINING)
    assert len(TRAINING) >= 10
