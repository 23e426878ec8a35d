"""The pages for users are true: every command of docs/aws.md is run, as a new user would, with --dry-run behind it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from runner_action import cli
from runner_action.sandbox.world import World

PAGE = (Path(__file__).parents[2] / "docs" / "aws.md").read_text("utf-8")
COMMANDS = re.findall(r"^    (cml-runner launch .*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(boots=False) as world:
        yield world


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_plans_what_it_says(command: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    environ = world.environ()
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environ[name])  # which the SDK reads by itself
    assert cli.main([*shlex.split(command)[1:], "--dry-run"], environ) == 0, capsys.readouterr()
    told = capsys.readouterr()
    assert "nothing was created" in told.out + told.err
    assert world.ec2.alive() == []


def test_the_policy_of_the_page_is_the_one_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.S)[0])
    assert cli.main(["permissions", "aws"], {}) == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_every_type_of_the_table_is_offered_somewhere(world: World) -> None:
    """By moto's offers, which are AWS's own of the day that moto was made."""
    table = PAGE[PAGE.index("| word |") : PAGE.index("Any name of EC2")]
    types = set(re.findall(r"`([a-z]\w+\.\w+)`", table))
    client = boto3.client("ec2", region_name="us-east-1", endpoint_url=world.ec2.url, aws_access_key_id="x", aws_secret_access_key="y")
    pages = client.get_paginator("describe_instance_type_offerings").paginate(Filters=[{"Name": "instance-type", "Values": sorted(types)}])
    assert {one["InstanceType"] for page in pages for one in page["InstanceTypeOfferings"]} == types
