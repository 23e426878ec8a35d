"""What is generated is fresh, and what we publish fits the judges of those who will read it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import pytest
import yaml

from runner_action import commandline, inputs
from runner_action.providers.aws.options import AwsOptions
from runner_action.providers.azure.options import AzureAccount, AzureOptions
from runner_action.providers.gcp.options import GcpOptions
from runner_action.providers.kubernetes.options import KubernetesOptions
from runner_action.request import CloudRequest, LaunchRequest
from runner_action.sandbox.forges.gitlab.ci import interpolated
from runner_action.sandbox.forges.gitlab.variables import Project, in_tags
from schema import generate
from tests.shipped import INCLUDED, USES, released

ROOT = Path(__file__).parents[1]
SCHEMA = inputs.schema()
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
COMPONENT = list(
    yaml.safe_load_all(released(ROOT / "gitlab-component/templates/launch-runner.yml"))
)


OF_THE_JOB = {"git-strategy", "image", "job", "rules", "stage"}
"""Inputs of the component that are not the launcher's."""


def judge(name: str) -> jsonschema.Draft7Validator:
    """A schema that check-jsonschema carries: GitHub's and GitLab's own, as editors use them."""
    text = (
        files("check_jsonschema")
        .joinpath("builtin_schemas", "vendor", f"{name}.json")
        .read_text("utf-8")
    )
    return jsonschema.Draft7Validator(json.loads(text))


def test_every_block_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "schema/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_stale_block_is_found() -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    stale = text.replace("Labels of the runner", "Something older")
    assert stale != text
    assert generate.render(SCHEMA, stale) == text


def test_a_block_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="mystery"):
        generate.render(
            SCHEMA, "# generated from schema/inputs.schema.json: mystery\n# end of mystery\n"
        )


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, prop in SCHEMA["properties"].items():
        assert prop["description"], name
        assert prop["x-group"], name


def test_defaults_fit_their_own_rules() -> None:
    given = {
        name: prop["default"] for name, prop in SCHEMA["properties"].items() if "default" in prop
    }
    assert (
        list(jsonschema.Draft202012Validator(SCHEMA).iter_errors({**given, "cloud": "aws"})) == []
    )


def test_the_action_is_one_and_has_every_input_and_output() -> None:
    judge("github-actions").validate(ACTION)
    assert list(ACTION["inputs"]) == list(SCHEMA["properties"])
    assert list(ACTION["outputs"]) == list(SCHEMA["$defs"]["outputs"]["properties"])
    assert not any("default" in entry for entry in ACTION["inputs"].values()), (
        "a default would hide a variable"
    )


def test_the_component_is_one_and_has_no_secret() -> None:
    judge("gitlab-ci").validate(COMPONENT[0])
    template = released(ROOT / "gitlab-component/templates/launch-runner.yml")
    made = interpolated(template, {})
    # This schema is behind GitLab itself: lib/gitlab/ci/config/entry/default.rb (since 16.4).
    made["launch-runner"]["inherit"]["default"].remove("id_tokens")
    judge("gitlab-ci").validate(made)
    given = set(COMPONENT[0]["spec"]["inputs"]) - OF_THE_JOB
    secrets = {name for name, prop in SCHEMA["properties"].items() if prop.get("writeOnly")}
    assert given == set(SCHEMA["properties"]) - secrets - {"command", "run-id"}
    (job,) = COMPONENT[1].values()
    assert (job["script"], job["after_script"]) == (["cml-runner launch"], ["cml-runner cleanup"])
    variables = {
        name: value["value"] if isinstance(value, dict) else value
        for name, value in job["variables"].items()
        if name.startswith("CML_RUNNER_")
    }
    assert variables == {
        f"CML_RUNNER_{name.upper().replace('-', '_')}": f"$[[ inputs.{name} ]]" for name in given
    }


def readme_blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", released(ROOT / "README.md"), re.S)


def workflows() -> list[dict[str, Any]]:
    """GitHub's; a pipeline of GitLab begins with what it includes."""
    return [yaml.safe_load(block) for block in readme_blocks() if not block.startswith("include:")]


def test_the_pipeline_of_the_readme_is_one() -> None:
    (pipeline,) = [
        yaml.safe_load(block) for block in readme_blocks() if block.startswith("include:")
    ]
    check_pipeline(pipeline)


def test_the_workflow_to_copy_is_short_and_one() -> None:
    found = workflows()
    assert found
    for workflow in found:
        judge("github-workflows").validate(
            {str(key).replace("True", "on"): value for key, value in workflow.items()}
        )  # YAML 1.1 reads `on` as true
    text = readme_blocks()[0]
    assert text.count("\n") <= 15


def test_the_workflow_to_copy_gives_inputs_that_we_take() -> None:
    steps = [
        step
        for workflow in workflows()
        for job in workflow["jobs"].values()
        for step in job["steps"]
    ]
    ours = [step for step in steps if step.get("uses", "").startswith(USES)]
    assert ours
    for step in ours:
        given = {
            name: re.sub(r"\$\{\{.*?\}\}", "1", str(value)) for name, value in step["with"].items()
        }
        environ = {f"INPUT_{name.upper()}": value for name, value in given.items()}
        github = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "octo/train",
        }
        request, warnings = inputs.parse(
            inputs.Raw(flags={}, environ={**environ, **github}), lambda _: None
        )
        assert warnings == []
        assert request.cloud
        assert request.cloud.sizes == ("m",)


EXAMPLES = sorted((ROOT / "gitlab-component" / "examples").glob("*.yml"))
COMPONENT_URL = f"{INCLUDED}@1"
PROJECT = Project("https://gitlab.com", 5, "octo/train")
GITLAB_JOB = {
    **PROJECT.at_creation(12, "launch-runner"),
    **PROJECT.persisted(1234, 99),
    "REPO_TOKEN": "t",
}


def test_the_pipeline_to_copy_is_short_and_one_of_the_examples() -> None:
    block, *_ = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "gitlab-component/README.md").read_text("utf-8"), re.S
    )
    assert (
        block
        == (ROOT / "gitlab-component/examples/train.yml").read_text("utf-8").partition("\n")[2]
    )
    assert block.count("\n") <= 15


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_a_pipeline_with_inputs_that_we_take(file: Path) -> None:
    check_pipeline(yaml.safe_load(released(file)))


def check_pipeline(pipeline: dict[str, Any]) -> None:
    judge("gitlab-ci").validate(pipeline)
    template = COMPONENT[0]["spec"]["inputs"]
    for include in pipeline.get("include", ()):
        assert include["component"] == COMPONENT_URL
        assert set(include["inputs"]) <= set(template)
        words = {name: value for name, value in include["inputs"].items() if name not in OF_THE_JOB}
        variables = {
            f"CML_RUNNER_{name.upper().replace('-', '_')}": Template(value).substitute(GITLAB_JOB)
            for name, value in words.items()
        }
        request, warnings = inputs.parse(
            inputs.Raw(flags={}, environ={**GITLAB_JOB, **variables}), lambda _: None
        )
        assert warnings == []
        assert request.cloud
        jobs = [
            job
            for name, job in pipeline.items()
            if name != "include"
            and include["inputs"].get("job", "launch-runner") in job.get("needs", [])
        ]
        assert jobs, "some job uses the machine"
        for job in jobs:
            tags = {in_tags(tag, PROJECT.at_creation(12, "train")) for tag in job["tags"]}
            assert tags <= set(request.labels)


def test_the_scheduled_example_looks_and_sweeps() -> None:
    job = yaml.safe_load(released(ROOT / "gitlab-component/examples/reap.yml"))["reap"]
    assert job["image"]["name"] == "ghcr.io/octo/cml-runner:v1"
    assert job["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    assert job["variables"]["GIT_STRATEGY"] == "empty"
    for line, command in zip(job["script"], ("status", "reap"), strict=True):
        flags, unknown = commandline.flags_of(line.split()[1:])
        raw = inputs.Raw(flags=flags, environ={**GITLAB_JOB, **job["variables"]}, unknown=unknown)
        request, warnings = inputs.parse(raw, lambda _: None)
        assert (inputs.command_of(raw), request.cloud and request.cloud.regions, warnings) == (
            command,
            (),
            [],
        )


OURS = {
    "gitlab-access-level": "access_level",
    "gitlab-executor": "executor",
    "no-retry": "restart_limit",
    "https-proxy": "environment",
    "no-proxy": "environment",
    "app-id": "token",
    "app-private-key": "token",
    "no-default-labels": "default_labels",
    "driver": "forge",
    "repo": "repository",
    "reuse-idle": "reuse",
    "cloud": "cloud",
}
OURS_OF_AWS = {"cloud-aws-subnet": "subnets"}
OURS_OF_THE_CLOUD = {
    "cloud-region": "regions",
    "cloud-type": "sizes",
    "cloud-hdd-size": "disk_gb",
    "cloud-ssh-private": "ssh_public_key",
}


def test_every_input_has_its_field() -> None:
    request, cloud = (
        {field.name for field in fields(LaunchRequest)},
        {field.name for field in fields(CloudRequest)},
    )
    expected = set()
    expected_cloud = {"provider", "options"}
    account = set()
    aws = set()
    gcp = set()
    azure = {"account"}
    kubernetes = {"accounts"}  # of the cloud beneath, by the inputs of that cloud
    for name in SCHEMA["properties"].keys() - {
        "command",
        "run-id",
        "allow-forks",
        "allow-http",
    }:  # words of `restart`, and what is answered with the inputs
        if name.startswith(("cloud-gcp-", "gcp-")):
            gcp.add(name.removeprefix("cloud-").removeprefix("gcp-").replace("-", "_"))
        elif name.startswith(("cloud-kubernetes-", "kubernetes-")):
            kubernetes.add(
                name.removeprefix("cloud-").removeprefix("kubernetes-").replace("-", "_")
            )
        elif name.startswith("cloud-azure-"):
            azure.add(name.removeprefix("cloud-azure-").replace("-", "_"))
        elif name.startswith("cloud-aws-"):
            aws.add(OURS_OF_AWS.get(name, name.removeprefix("cloud-aws-").replace("-", "_")))
        elif name.startswith("cloud-"):
            expected_cloud.add(
                OURS_OF_THE_CLOUD.get(name, name.removeprefix("cloud-").replace("-", "_"))
            )
        elif name.startswith("azure-"):
            account.add(name.removeprefix("azure-").replace("-", "_"))
        else:
            expected.add(OURS.get(name, name.replace("-", "_")))
    assert request == expected
    assert cloud == expected_cloud
    assert {field.name for field in fields(AzureAccount)} == account
    assert {field.name for field in fields(AzureOptions)} == azure
    assert {field.name for field in fields(AwsOptions)} == aws
    assert {field.name for field in fields(GcpOptions)} == gcp
    assert {field.name for field in fields(KubernetesOptions)} == kubernetes
