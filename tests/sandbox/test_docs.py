"""The pages for users are true: every command of docs/aws.md and docs/gcp.md is run, as a new
user would, with --dry-run behind it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from runner_action import cli
from runner_action.sandbox.clouds.aws.ec2 import ONLOOKER
from runner_action.sandbox.world import World

DOCS = Path(__file__).parents[2] / "docs"
PAGE, GOOGLES, AZURES, CLUSTERS = (
    (DOCS / f"{cloud}.md").read_text("utf-8") for cloud in ("aws", "gcp", "azure", "kubernetes")
)
COMMAND = re.compile(r"^    (cml-runner launch .*)$", re.M)
COMMANDS, GOOGLES_COMMANDS, AZURES_COMMANDS, CLUSTERS_COMMANDS = (
    COMMAND.findall(page) for page in (PAGE, GOOGLES, AZURES, CLUSTERS)
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(boots=False) as world:
        yield world


@pytest.fixture(scope="module")
def google() -> Iterator[World]:
    with World(cloud="gcp", boots=False) as world:
        yield world


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 12
    assert len(GOOGLES_COMMANDS) >= 12
    assert len(AZURES_COMMANDS) >= 12
    assert len(CLUSTERS_COMMANDS) >= 20


@pytest.mark.parametrize("command", GOOGLES_COMMANDS)
def test_a_command_of_googles_page_plans_what_it_says(
    command: str, google: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*shlex.split(command)[1:], "--dry-run"], google.environ()) == 0, (
        capsys.readouterr()
    )
    told = capsys.readouterr()
    assert "nothing was created" in told.out + told.err
    assert google.left() == []


@pytest.fixture(scope="module")
def azure() -> Iterator[World]:
    with World(cloud="azure", boots=False) as world:
        yield world


@pytest.mark.parametrize("command", AZURES_COMMANDS)
def test_a_command_of_azures_page_plans_what_it_says(
    command: str, azure: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = azure.environ()
    monkeypatch.setenv(
        "REQUESTS_CA_BUNDLE", environ["REQUESTS_CA_BUNDLE"]
    )  # which the SDK reads by itself
    assert cli.main([*shlex.split(command)[1:], "--dry-run"], environ) == 0, capsys.readouterr()
    told = capsys.readouterr()
    assert "nothing was created" in told.out + told.err
    assert azure.left() == []


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[World]:
    with World(cloud="kubernetes", boots=False) as world:
        assert world.kubernetes
        world.kubernetes.namespaces.add("runners")
        yield world


@pytest.mark.parametrize("command", CLUSTERS_COMMANDS)
def test_a_command_of_the_clusters_page_plans_what_it_says(
    command: str, kubernetes: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*shlex.split(command)[1:], "--dry-run"], kubernetes.environ()) == 0, (
        capsys.readouterr()
    )
    told = capsys.readouterr()
    assert "nothing was created" in told.out + told.err
    assert kubernetes.left() == []


def test_the_role_of_the_clusters_page_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", CLUSTERS, re.S)[0]
    assert cli.main(["permissions", "kubernetes"], {}) == 0
    assert capsys.readouterr().out == shown


def test_the_role_of_azures_page_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = re.findall(r"```json\n(.*?)```", AZURES, re.S)[0]
    assert cli.main(["permissions", "azure"], {}) == 0
    assert capsys.readouterr().out == shown


def test_the_role_of_the_page_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", GOOGLES, re.S)[0]
    assert cli.main(["permissions", "gcp"], {}) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_plans_what_it_says(
    command: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = world.environ()
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environ[name])  # which the SDK reads by itself
    assert cli.main([*shlex.split(command)[1:], "--dry-run"], environ) == 0, capsys.readouterr()
    told = capsys.readouterr()
    assert "nothing was created" in told.out + told.err
    assert world.ec2.alive() == []


def test_the_policy_of_the_page_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.S)[0])
    assert cli.main(["permissions", "aws", "--repo=https://github.com/octo/train"], {}) == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_every_type_of_the_table_is_offered_somewhere(world: World) -> None:
    """By moto's offers, which are AWS's own of the day that moto was made."""
    table = PAGE[PAGE.index("| word |") : PAGE.index("Any name of EC2")]
    types = set(re.findall(r"`([a-z]\w+\.\w+)`", table))
    client = boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=world.ec2.url,
        aws_access_key_id=ONLOOKER,
        aws_secret_access_key="y",
    )
    pages = client.get_paginator("describe_instance_type_offerings").paginate(
        Filters=[{"Name": "instance-type", "Values": sorted(types)}]
    )
    assert {one["InstanceType"] for page in pages for one in page["InstanceTypeOfferings"]} == types
