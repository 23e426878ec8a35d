"""Protected variables, branches and runners of GitLab: what is withheld from a job is told as
that, and a runner that this pipeline's jobs would never get is warned of."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner_action import cli, forges, inputs
from runner_action.errors import CredentialsError
from runner_action.model import ForgeName
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.variables import Project

MORE = {
    "aws": [],
    "azure": [],
    "gcp": [],
    "kubernetes": ["--cloud-image=x/y:1"],
}
WITHHELD = "protected (Settings > CI/CD > Variables) is not given to this job"
QUIET = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_GCE_CHECK": "true",
    "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
    "HOME": "/nonexistent",
    "PATH": os.environ["PATH"],
}
"""No SDK looks for an identity of this machine."""


@pytest.fixture
def server() -> Iterator[FakeGitLab]:
    fake = FakeGitLab({"canary-admin": ["api"]})
    yield fake
    fake.close()


def job(server: str, *, protected: bool, **more: str) -> dict[str, str]:
    project = Project(server, 5, "octo/train", protected)
    here = {**project.at_creation(12, "launch"), **project.persisted(90, 9)}
    return {**here, "CI_COMMIT_REF_NAME": "larger-batches", **more}


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize("cloud", MORE)
def test_credentials_that_are_missing_may_be_withheld(
    cloud: str,
    protected: bool,
    server: FakeGitLab,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = job(server.server_url, protected=protected, REPO_TOKEN="canary-admin", **QUIET)
    for name in set(os.environ).difference(environ):
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    argv = ["launch", f"--cloud={cloud}", f"--runner-downloads={server.downloads}", *MORE[cloud]]
    assert cli.main(argv, environ) == CredentialsError.exit_code
    shown = "".join(capsys.readouterr())
    assert (WITHHELD in shown) is not protected
    assert ("branch larger-batches is not protected" in shown) is not protected
    assert server.forge.seats() == []


def parsed(environ: dict[str, str], **flags: str) -> list[str]:
    given = {"cloud": ["aws"], "labels": ["cml"], "token": ["t"]}
    given |= {name.replace("_", "-"): [value] for name, value in flags.items()}
    return inputs.parse(inputs.Raw(flags=given, environ=environ), lambda _: None)[1]


@pytest.mark.parametrize(
    ("protected", "level", "warned"),
    [
        (False, "ref_protected", True),
        (False, "not_protected", False),
        (True, "ref_protected", False),
    ],
)
def test_a_runner_that_this_pipeline_never_gets_is_warned_of(
    protected: bool, level: str, warned: bool
) -> None:
    environ = job("https://gitlab.com", protected=protected)
    warnings = parsed(environ, gitlab_access_level=level)
    told = [text for text in warnings if "GitLab gives it no job of this pipeline" in text]
    assert len(told) == warned
    assert all("the branch larger-batches is not protected" in text for text in told)


def test_in_a_merge_request_pipeline_no_branch_is_to_be_protected() -> None:
    """GitLab says that it is not protected there, whatever the branches are."""
    environ = job("https://gitlab.com", protected=False, CI_MERGE_REQUEST_IID="3")
    told = forges.withheld(environ)
    assert WITHHELD in told
    assert "merge request" in told
    assert "clear `Protect variable`" in told
    assert "larger-batches" not in told
    (warning,) = parsed(environ, gitlab_access_level="ref_protected")
    assert "merge request" in warning
    assert "larger-batches" not in warning


def test_a_tag_is_called_a_tag_and_its_name_is_no_command() -> None:
    environ = job("https://gitlab.com", protected=False, CI_COMMIT_TAG="v1")
    assert "its tag larger-batches is not" in forges.withheld(environ)
    hostile = {**environ, "CI_COMMIT_REF_NAME": "a\x1b[2Jb"}
    assert "\x1b" not in forges.withheld(hostile)


@pytest.mark.parametrize("protected", [True, False])
def test_a_restart_token_that_is_missing_may_be_withheld(protected: bool) -> None:
    environ = job("https://gitlab.com", protected=protected)
    (warning,) = parsed(environ, cloud_spot="true")
    assert "`restart-token`" in warning
    assert (WITHHELD in warning) is not protected


def test_outside_gitlab_nothing_is_withheld() -> None:
    assert forges.withheld({}) == ""
    assert forges.withheld({"GITHUB_ACTIONS": "true"}) == ""
    assert list(forges.warnings(ForgeName.GITHUB, {}, {})) == []
