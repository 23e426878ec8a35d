"""A sample of `make canaries`, and what every run of it must find."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from runner_action.model import ForgeName
from tests.canaries import points, variables
from tests.canaries.points import Point, Road, Source
from tests.canaries.stage import Stage, tried, useless

# A launch leaves its connections to the end of its process, which is that of the tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SEED = 26
GITHUB, GITLAB = ForgeName
ALWAYS = (
    # Cut before it was filtered.
    Point(
        Source("KUBERNETES_CONFIGURATION", "kubeconfig"), "nothing", "kubernetes", GITHUB, Road.CUT
    ),
    # Misread, so that only parts of it are as they were.
    Point(Source("AWS_ACCESS_KEY_ID"), "U+200B", "aws", GITHUB, Road.CUT),
    Point(Source("NETRC", "netrc", file=True), "NBSP", "gcp", GITLAB, Road.RAISED),
    # What an SDK does not expect.
    Point(Source("NETRC", "netrc", file=True), "typographic quotes", "gcp", GITLAB, Road.QUOTED),
    Point(Source("--token"), "nothing", "aws", GITLAB, Road.RAISED),
    Point(Source("GITLAB_TOKEN"), "quote", "local", GITLAB, Road.QUOTED),
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()
    gc.collect()  # here, and not in a test of others


@pytest.mark.parametrize("point", [*ALWAYS, *points.sample(40, SEED)], ids=str)
def test_no_secret_is_shown_and_no_environment_is_a_bug(point: Point, stage: Stage) -> None:
    outcome = tried(point, stage, SEED)
    assert not outcome.problem, outcome.shown.text


@pytest.mark.parametrize(
    ("cloud", "name", "value"),
    [
        ("aws", "AWS_CREDENTIAL_EXPIRATION", "-1"),
        ("aws", "AWS_WEB_IDENTITY_TOKEN_FILE", "BINARY"),
        ("aws", "AWS_PROFILE", "garbage"),
        ("gcp", "NETRC", "BINARY"),
        ("gcp", "CLOUDSDK_CONFIG", "FOLDER"),
        ("kubernetes", "KUBECONFIG", "BROKEN"),
    ],
)
def test_a_variable_that_nobody_can_use_is_no_bug(
    cloud: str, name: str, value: str, stage: Stage
) -> None:
    outcome = useless(cloud, name, value, stage)
    assert not outcome.problem, outcome.shown.text


def test_every_variable_that_an_sdk_reads_is_known() -> None:
    """A new one belongs to the secrets (`secret_variables`, `secret_files`), to those that are
    tried (USED), or to the harmless ones, with the reason."""
    assert variables.unknown() == {}


def test_a_variable_is_found_however_it_is_read() -> None:
    assert {
        "AWS_SESSION_TOKEN",  # from a list of a class
        "AZURE_CLIENT_SECRET",  # from a class of constants
        "GCE_METADATA_IP",  # a module's constant
        "NETRC",  # a text
        "AWS_MAX_ATTEMPTS",  # from a table
        "PYTHON_GITLAB_CFG",
        "KUBECONFIG",
    } <= variables.read_by_sdks().keys()
