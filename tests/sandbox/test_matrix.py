"""A sample of the kill matrix. All of it: `make matrix`; docs/reliability.md tells what it is."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.matrix.points import Call, Fate, Point, Story, name_of, numbered, points, sample

pytestmark = pytest.mark.sandbox


def test_a_sample_of_the_kill_matrix_leaves_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.matrix",
        "--quick",
        "--sample=40",
        "--seed=12",
        "--workers=4",
        "--log",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("service", "method", "path", "query", "body", "name"),
    [
        ("aws", "POST", "/", "", b"Action=CreateFleet&Version=2016-11-15", "aws CreateFleet"),
        (
            "github",
            "DELETE",
            "/api/v3/repos/octo/train/actions/runners/17",
            "",
            b"",
            "github DELETE /repos/octo/train/actions/runners/ID",
        ),
        (
            "gitlab",
            "POST",
            "/api/v4/user/runners",
            "",
            b'{"description": "cml-0123456789"}',
            "gitlab POST /user/runners",
        ),
        (
            "gitlab",
            "POST",
            "/api/v4/user/runners",
            "",
            b'{"description": "cml-turn-0123456789 x"}',
            "gitlab POST /user/runners (a turn)",
        ),
        ("gitlab", "GET", "/git/api/v4/runners/3/jobs", "", b"", "gitlab GET /runners/ID/jobs"),
        (
            "kubernetes",
            "GET",
            "/api/v1/namespaces/ci/pods",
            "watch=true",
            b"",
            "kubernetes GET /v1/namespaces/ci/pods?watch",
        ),
        (
            "azure",
            "PUT",
            "/subscriptions/x/resourceGroups/cml-0123456789-01234567",
            "",
            b"",
            "azure PUT /resourceGroups/NAME",
        ),
    ],
)
def test_a_call_has_the_same_name_in_every_world(
    service: str, method: str, path: str, query: str, body: bytes, name: str
) -> None:
    assert name_of(service, method, path, query, body) == name


def test_a_new_call_has_points_by_itself_and_a_known_one_of_another_story_has_none() -> None:
    plain, ends = Story("aws", "github"), Story("aws", "github", ends=True)
    calls = numbered(
        ["aws DescribeImages", "aws CreateFleet", "aws CreateFleet", "aws CreateFleet"]
    )
    assert calls == [
        Call("aws DescribeImages"),
        Call("aws CreateFleet"),
        Call("aws CreateFleet", 2),
    ]
    found = points({plain: calls, ends: [*calls, Call("aws TerminateInstances")]})
    again = {
        point
        for point in found
        if point.story == ends and point.call.name != "aws TerminateInstances"
    }
    assert {point.fate for point in again} == {Fate.TWICE}, (
        "what was made twice shows at the end of a launch that is cancelled"
    )
    assert {point.call for point in again} == set(calls[1:])
    assert len(found) == 3 * len(Fate) + len(Fate) - 2 + len(again), (
        "what changes nothing cannot do it twice"
    )


def test_a_sample_is_spread_and_the_same_for_the_same_seed() -> None:
    every = [
        Point(Story(cloud, "github"), Call(f"call {number}"), fate)
        for cloud in ("aws", "gcp")
        for number in range(50)
        for fate in Fate
    ]
    chosen = sample(every, 2 * len(Fate), 1)
    assert {(point.story.cloud, point.fate) for point in chosen} == {
        (cloud, fate) for cloud in ("aws", "gcp") for fate in Fate
    }
    assert chosen == sample(every, 2 * len(Fate), 1)
    assert chosen != sample(every, 2 * len(Fate), random.Random(1).randrange(2, 99))
