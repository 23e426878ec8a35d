"""Every flag, alias and variable of CML's runner: the same, changed or gone, with its exact answer.
docs/from-cml.md says so in words, row by row."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner_action import commandline, inputs
from runner_action.errors import InputError

PAGE = (Path(__file__).parents[1] / "docs" / "from-cml.md").read_text("utf-8")
ROW = re.compile(
    r"^\| `(?P<word>[^`]+)` \| (?P<verdict>same|changed|gone) \| ?(?P<text>.*?) ?\|$", re.M
)
ROWS = {match["word"]: (match["verdict"], match["text"]) for match in ROW.finditer(PAGE)}
BASE = {"REPO_TOKEN": "canary", "CML_REPO": "octo/train"}
AWS, GITLAB = ["--cloud=aws"], ["--driver=gitlab"]
SG, SUBNET = "sg-01234567", "subnet-01234567"
PROFILE = "arn:aws:iam::123456789012:instance-profile/name"

FLAGS: dict[str, tuple[list[str], str, str, Any]] = {
    "--labels": ([], "a,b", "labels", ("a", "b")),
    "--idle-timeout": ([], "1d 3h 25m 18s", "idle_timeout", 98718),
    "--name": ([], "train-gpu", "name", "train-gpu"),
    "--no-retry": ([], "", "restart_limit", 0),
    "--single": ([], "", "single", True),
    "--reuse": ([], "", "reuse.name", "ANY"),
    "--reuse-idle": ([], "", "reuse.name", "IDLE"),
    "--docker-volumes": (GITLAB, "/a:/a", "docker_volumes", ("/a:/a",)),
    "--cloud": ([], "azure", "cloud.provider", "azure"),
    "--cloud-region": (AWS, "us-east", "cloud.regions", ("us-east",)),
    "--cloud-type": (AWS, "m+t4", "cloud.sizes", ("m+t4",)),
    "--cloud-gpu": (AWS, "tesla", "cloud.gpu", "tesla"),
    "--cloud-hdd-size": (AWS, "40", "cloud.disk_gb", 40),
    "--cloud-permission-set": (AWS, PROFILE, "cloud.permission_set", PROFILE),
    "--cloud-metadata": (AWS, "a=b=c", "cloud.metadata", {"a": "b=c"}),
    "--cloud-spot": (AWS, "", "cloud.spot.name", "ONLY"),
    "--cloud-spot-price": ([*AWS, "--cloud-spot"], "0.05", "cloud.spot_price", 0.05),
    "--cloud-startup-script": (AWS, "ZWNobyBhCg==", "cloud.startup_script", "echo a\n"),
    "--cloud-aws-security-group": (AWS, SG, "cloud.options.security_group", SG),
    "--cloud-aws-subnet": (AWS, SUBNET, "cloud.options.subnets", (SUBNET,)),
    "--cloud-aws-subnet-id": (AWS, SUBNET, "cloud.options.subnets", (SUBNET,)),
    "--cloud-kubernetes-node-selector": (
        ["--cloud=kubernetes"],
        *("accelerator=infer", "cloud.options.node_selector", {"accelerator": "infer"}),
    ),
    "--cloud-image": (AWS, "ami-01234567", "cloud.image", "ami-01234567"),
    "--log": ([], "debug", "log", "debug"),
    "--driver": ([], "gitlab", "forge", "gitlab"),
    "--repo": ([], "https://github.com/octo/other", "repository.path", "octo/other"),
    "--token": ([], "canary-2", "token", "canary-2"),
    "--driver-token": ([], "canary-2", "token", "canary-2"),
}
"""By flag of CML: what it needs, an example, and the field of the request with its value."""
OTHERS = ("--help", "--version", "--cloud-ssh-private")
"""Tested in test_inputs.py."""
GONE = {
    **dict.fromkeys(("--workdir", "--path", "--runner-path"), "the machine has its own folder"),
    **dict.fromkeys(
        ("--tpi-version", "--tf-resource", "--tf_resource", "--tf-file"), "there is no Terraform"
    ),
    "--docker-machine": "there is no Docker Machine",
    "--cml-version": "agent and launcher are one version",
    "--destroy-delay": "the machine's log is on its console",
    "--gcp-access-token": "credentials come from the environment",
}
VARIABLES: dict[str, tuple[str, str, Any]] = {
    **dict.fromkeys(
        (
            "CML_TOKEN",
            "CML_DRIVER_TOKEN",
            "REPO_TOKEN",
            "repo_token",
            "GITHUB_TOKEN",
            "GITLAB_TOKEN",
        ),
        ("canary-2", "token", "canary-2"),
    ),
    "CML_REPO": ("octo/other", "repository.path", "octo/other"),
    "CML_DRIVER": ("gitlab", "forge", "gitlab"),
    "CML_LOG": ("debug", "log", "debug"),
    "RUNNER_LABELS": ("cml,vm", "labels", ("cml", "vm")),
    "RUNNER_IDLE_TIMEOUT": ("1800", "idle_timeout", 1800),
    "RUNNER_SINGLE": ("true", "single", True),
    "RUNNER_REUSE": ("true", "reuse.name", "ANY"),
    "RUNNER_NO_RETRY": ("true", "restart_limit", 0),
    "RUNNER_DRIVER": ("gitlab", "forge", "gitlab"),
    "RUNNER_REPO": ("octo/other", "repository.path", "octo/other"),
    "RUNNER_NAME": ("Hosted Agent 3", "name", None),
}
WARNED = {
    "RUNNER_PATH": "the machine has its own folder",
    "CML_RUNNER_PATH": "the machine has its own folder",
    "DOCKER_MACHINE": "there is no Docker Machine",
}
UNREAD = (
    *("BITBUCKET_TOKEN", "TF_LOG_PROVIDER", "ITERATIVE_DO_NOT_TRACK"),
    *("_CML_RUNNER_SENSITIVE_ENV", "IN_DOCKER"),
)
OF_CLOUDS = (
    *("AWS_ACCESS_KEY_ID", "AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS_DATA"),
    "KUBERNETES_CONFIGURATION",
)


def parsed(argv: list[str], environ: dict[str, str]) -> tuple[Any, list[str]]:
    flags, unknown = commandline.flags_of(argv)
    raw = inputs.Raw(flags=flags, environ=environ, unknown=unknown)
    return inputs.parse(raw, lambda _: None)


def field(request: Any, name: str) -> Any:
    for part in name.split("."):
        request = getattr(request, part)
    if name == "token":
        return request.reveal()
    return dict(request) if name.endswith(("metadata", "selector")) else request


def test_the_page_has_every_word_and_no_other() -> None:
    words = {*FLAGS, *OTHERS, *GONE, *VARIABLES, *WARNED, *UNREAD, *OF_CLOUDS}
    assert set(ROWS) == words
    gone = {word for word, (verdict, _) in ROWS.items() if verdict == "gone"}
    assert gone == {*GONE, *WARNED, *UNREAD}


def test_the_page_names_every_input_of_cmls() -> None:
    """Each flag that lives on is one of the schema's, and each retired one is in the table."""
    known = inputs.spellings() | {"help", "version"}
    assert {word[2:] for word in (*FLAGS, *OTHERS)} <= known
    assert {word[2:].replace("_", "-") for word in GONE} == set(inputs.schema()["x-retired"])
    assert set(inputs.schema()["x-retired-env"]) < set(WARNED)
    older = {
        name
        for prop in inputs.schema()["properties"].values()
        for name in prop.get("x-env", ())
        if name.startswith(("RUNNER_", "CML_")) and not name.startswith("CML_RUNNER_")
    }
    assert older <= set(VARIABLES)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_cml(flag: str) -> None:
    needed, text, name, expected = FLAGS[flag]
    ways = [[flag, text] if text else [flag], [f"{flag}={text or 'true'}"]]
    for beginning in (["launch"], ["cml", "runner"], []):
        for way in ways:
            request, warnings = parsed([*beginning, *needed, *way], BASE)
            assert field(request, name) == expected
            assert not [line for line in warnings if flag[2:] in line]


@pytest.mark.parametrize("ci", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_a_cloud_that_was_forgotten_in_a_job_is_refused(ci: str) -> None:
    assert ROWS["--cloud"][0] == "changed"
    assert "refused" in ROWS["--cloud"][1]
    environ = {**BASE, ci: "true"}
    with pytest.raises(InputError, match="input cloud is missing: write a cloud"):
        parsed([], environ)
    assert parsed(["--cloud=local"], environ)[0].cloud is parsed([], BASE)[0].cloud is None


@pytest.mark.parametrize("flag", FLAGS)
def test_its_variable(flag: str) -> None:
    needed, text, name, expected = FLAGS[flag]
    variable = f"CML_RUNNER_{flag[2:].upper().replace('-', '_')}"
    request, warnings = parsed(needed, {**BASE, variable: text or "true"})
    assert field(request, name) == expected
    assert not [line for line in warnings if variable in line]


@pytest.mark.parametrize("flag", GONE)
def test_a_flag_that_is_gone_says_why(flag: str) -> None:
    answer = f"--{flag[2:].replace('_', '-')} no longer does anything: {GONE[flag]}"
    assert parsed([f"{flag}=x"], BASE)[1] == parsed([flag, "x"], BASE)[1] == [answer]
    assert ROWS[flag][1] == f"It warns: {GONE[flag]}."


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_of_cml(variable: str) -> None:
    text, name, expected = VARIABLES[variable]
    environ = {key: value for key, value in BASE.items() if name not in key.lower()}
    if name == "repository.path":
        environ = {"REPO_TOKEN": "canary"}
    request, warnings = parsed([], {**environ, variable: text})
    assert field(request, name) == expected
    older = variable.startswith("RUNNER_") and expected is not None
    spelled = variable[7:].lower().replace("_", "-")
    answer = f"{variable} was read as `{spelled}`, as in CML; write CML_{variable}"
    assert warnings == ([answer] if older else [])
    assert ROWS[variable][0] == ("changed" if older else "same")


def test_the_newer_spelling_wins() -> None:
    both = {"RUNNER_LABELS": "old", "CML_RUNNER_LABELS": "new", "RUNNER_REPO": "octo/old"}
    request, warnings = parsed([], {**BASE, **both})
    assert (request.labels, request.repository.path, warnings) == (("new",), "octo/train", [])


@pytest.mark.parametrize("variable", WARNED)
def test_a_variable_that_is_gone_says_why(variable: str) -> None:
    _, warnings = parsed([], {**BASE, variable: "x"})
    assert warnings == [f"{variable} no longer does anything: {WARNED[variable]}"]
    assert ROWS[variable][1] == f"It warns: {WARNED[variable]}."


@pytest.mark.parametrize("variable", UNREAD)
def test_a_variable_that_nothing_reads(variable: str) -> None:
    assert parsed([], {**BASE, variable: "x"}) == parsed([], BASE)
    assert ROWS[variable][1].startswith("Nothing reads it: ")


def test_bitbucket_is_answered() -> None:
    with pytest.raises(InputError) as caught:
        parsed(["--driver=bitbucket"], BASE)
    assert caught.value.problems == (
        "--driver=bitbucket must be `github` or `gitlab`; CML's `bitbucket` does not exist here",
    )


def test_an_unknown_variable_is_a_warning() -> None:
    _, warnings = parsed([], {**BASE, "CML_RUNNER_FOO": "1"})
    assert warnings == ["CML_RUNNER_FOO is not a variable of cml-runner and was ignored"]


BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


def launches(pipeline: Any) -> Iterator[Any]:
    """The requests of a GitHub workflow or a GitLab pipeline."""
    for job in pipeline.get("jobs", pipeline).values():
        for step in job.get("steps", ()):
            if step.get("uses", "").startswith("<owner>/cml-runner@"):
                given = {f"INPUT_{name.upper()}": str(text) for name, text in step["with"].items()}
                assert set(step["with"]) <= inputs.spellings()
                yield parsed([], {**BASE, **given})
        lines = [step.get("run", "") for step in job.get("steps", ())] + job.get("script", [])
        for line in lines:
            if re.match(r"cml(-| )runner ", line):
                yield parsed(shlex.split(line), BASE)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (2, 3)])
def test_before_and_after_ask_for_the_same(before: int, after: int) -> None:
    (old,), (new,) = launches(BLOCKS[before]), launches(BLOCKS[after])
    assert old == new
    assert (old[0].cloud.sizes, old[0].labels) == (("m+t4",), ("cml-gpu",))
