"""GitLab's variables in what we ship stand only where GitLab, its runner or a shell replaces them.

https://docs.gitlab.com/ci/variables/where_variables_can_be_used/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from runner_action.sandbox.forges.gitlab.ci import NO_JOBS
from runner_action.sandbox.forges.gitlab.variables import (
    NEVER_IN_TAGS,
    Project,
    in_tags,
    references,
)
from tests.shipped import Definition, pipelines, texts

PROJECT = Project("https://gitlab.com", 5, "octo/train")
IN_INCLUDE = {*PROJECT.variables, "CI_COMMIT_SHA"}
"""https://docs.gitlab.com/ci/yaml/includes/#use-variables-with-include, and, for the commit,
https://docs.gitlab.com/ci/components/#test-the-component"""
AT_CREATION = set(PROJECT.at_creation(1, "train"))
EXPANDED_AT_CREATION = ("environment", "resource_group", "tags")
"""`Expansion place` GitLab in that table: what is not there yet stays as it is written."""
COMPARED_AT_CREATION = ("rules",)
"""What is missing counts as empty there, as CI_COMMIT_TAG for a branch; persisted ones always."""
EXPANDED_LATER = (
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "id_tokens",
    "image",
    "release",
    "script",
    "services",
    "variables",
)
"""By the runner or a shell, or, as `id_tokens`, when the job runs: all variables are known. In all
other keywords none is."""
FORMS = ("${}", "${{{}}}", "%{}%")
GROUPS = "CI_PROJECT_ID", "CI_PIPELINE_IID"


def written(part: object) -> str:
    """All texts of a part, keys among them."""
    return json.dumps(part, ensure_ascii=False)


def wrong(definition: Definition) -> Iterator[str]:
    """What is expanded nowhere or too early, as `job: keyword: variable`."""
    for include in definition.get("include", ()):
        yield from (f"include: {name}" for name in _included(include))
    for name, job in definition.items():
        if name in NO_JOBS and name != "default":
            continue
        variables = {**definition.get("variables", {}), **job.get("variables", {})}
        # What holds a variable is not expanded once more in `tags:`.
        given = {key for key, value in variables.items() if not references(str(value))}
        for keyword, part in job.items():
            found = references(written(part))
            if keyword in EXPANDED_LATER:
                found = []
            elif keyword in EXPANDED_AT_CREATION:
                found = [one for one in found if one not in AT_CREATION | given]
            elif keyword in COMPARED_AT_CREATION:
                found = [one for one in found if one in NEVER_IN_TAGS]
            yield from (f"{name}: {keyword}: {one}" for one in found)


def _included(include: Definition) -> Iterator[str]:
    inputs = include.get("inputs", {})
    yield from (one for one in references(include["component"]) if one not in IN_INCLUDE)
    yield from references(written({key: inputs.get(key) for key in ("job", "stage")}))
    labels = references(inputs.get("labels", ""))
    yield from (f"labels: {one}" for one in labels if one not in AT_CREATION)
    if "repo" in inputs and set(labels).intersection(GROUPS) == {"CI_PIPELINE_IID"}:
        yield "labels: CI_PIPELINE_IID, which projects of a group share"


def misleading(text: str) -> list[str]:
    """Variables that a paragraph about tags or labels writes though they cannot stand there."""
    paragraphs = re.split(r"\n\s*\n", text)
    about = (one for one in paragraphs if re.search(r"\b(?:tags|labels)\b", one, re.I))
    return [name for one in about for name in references(one) if name in NEVER_IN_TAGS]


# --- what we ship


@pytest.mark.parametrize("name", pipelines())
def test_a_pipeline_has_variables_only_where_they_are_replaced(name: str) -> None:
    assert list(wrong(pipelines()[name])) == []


@pytest.mark.parametrize("name", texts())
def test_no_text_tells_to_write_a_variable_that_stays_as_it_is(name: str) -> None:
    assert misleading(texts()[name]) == []


def test_everything_is_looked_at() -> None:
    examples = [name for name in pipelines() if name.startswith("gitlab-component/examples/")]
    assert len(examples) >= 8
    assert {"README.md 2", "gitlab-component/.gitlab-ci.yml"} <= set(pipelines())
    assert {
        "README.md",
        "action.yml",
        "docs/reuse.md",
        "gitlab-component/README.md",
        "gitlab-component/examples/aws.yml",
        "gitlab-component/templates/launch-runner.yml",
        "schema/inputs.schema.json",
    } <= set(texts())


# --- and it would be found


def planted(*path: str | int, value: Any) -> Any:
    """Nested mappings and lists with that value at the end of a path."""
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return value


Place = tuple[str | int, ...]
PLACES: Sequence[Place] = (
    *(("train", keyword, 0) for keyword in ("tags", "needs", "rules")),
    *(("train", keyword) for keyword in ("environment", "stage", "timeout", "retry")),
    ("default", "tags", 0),
    ("include", 0, "component"),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NEVER_IN_TAGS)
def test_a_variable_that_is_not_there_yet_is_found(name: str, form: str) -> None:
    for place in PLACES:
        definition = planted(*place, value=f"train-{form.format(name)}")
        assert [one for one in wrong(definition) if one.endswith(name)], place
    inputs = {"labels": f"train-{form.format(name)}"}
    definition = {"include": [{"component": "a/b@1", "inputs": inputs}]}
    assert list(wrong(definition)) == [f"include: labels: {name}"]


TEXTS = (
    'Bind by `tags: ["train-{}"]`.',
    "train:\n  tags:\n    - train-{}\n  script: [x]\n",
    '"description": "Labels. On GitLab `train-{}` in both places."',
    "First.\n\nWrite the same\nin `tags`, such as\n`train-{}`.\n\nLast.",
    "cml-runner launch --labels=train-{}",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NEVER_IN_TAGS)
def test_a_text_that_misleads_is_found(name: str, form: str) -> None:
    for text in TEXTS:
        assert misleading(text.replace("{}", form.format(name))) == [name], text


@pytest.mark.parametrize(
    ("definition", "what"),
    [
        ({"train": {"tags": ["$RUNNER_LABEL"]}}, "train: tags: RUNNER_LABEL"),
        ({"train": {"tags": ["$M"], "variables": {"M": "$N"}}}, "train: tags: M"),
        ({"train": {"stage": "$CI_JOB_NAME"}}, "train: stage: CI_JOB_NAME"),
        ({"include": [{"component": "$CI_PIPELINE_IID"}]}, "include: CI_PIPELINE_IID"),
        ({"include": [{"component": "a", "inputs": {"job": "$CI"}}]}, "include: CI"),
    ],
)
def test_so_are_others(definition: Definition, what: str) -> None:
    assert list(wrong(definition)) == [what]


def test_a_number_that_projects_share_is_found_at_a_group() -> None:
    def included(labels: str) -> list[str]:
        inputs = {"repo": "$CI_SERVER_URL/octo", "labels": labels}
        return list(wrong({"include": [{"component": "a/b@1", "inputs": inputs}]}))

    (found,) = included("train-$CI_PIPELINE_IID")
    assert found.endswith("CI_PIPELINE_IID, which projects of a group share")
    assert included("train-$CI_PROJECT_ID-$CI_PIPELINE_IID") == []
    for project in (PROJECT, Project(PROJECT.server, 6, "octo/other")):
        known = project.at_creation(7, "train")
        assert in_tags("$CI_PROJECT_ID-$CI_PIPELINE_IID", known) == f"{project.id}-7"


@pytest.mark.parametrize(
    "definition",
    [
        {"train": {"tags": ["train-$CI_PROJECT_ID-${CI_PIPELINE_IID}"]}},
        {"variables": {"M": "gpu"}, "train": {"tags": ["$M-$N"], "variables": {"N": 7}}},
        {"train": {"script": ["echo $CI_PIPELINE_ID"], "image": "$CI_JOB_IMAGE"}},
        {"include": [{"component": "$CI_SERVER_FQDN/a@1", "inputs": {"repo": "$CI_JOB_URL"}}]},
    ],
)
def test_what_is_replaced_is_left_alone(definition: Definition) -> None:
    assert list(wrong(definition)) == []
