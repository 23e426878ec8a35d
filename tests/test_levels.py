"""Where runners belong, by the address; what no forge of ours serves; what tokens need, in the
words that are printed and documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner_action import cli, commandline, forges, inputs
from runner_action.forges.github.levels import api_url_of, level_of, root_of
from runner_action.forges.github.permissions import EXAMPLES, text
from runner_action.forges.places import holds
from runner_action.model import ForgeName, Repository

DOCS = Path(__file__).parents[1] / "docs" / "github.md"


@pytest.mark.parametrize(
    ("url", "level", "root", "api"),
    [
        (
            "https://github.com/octo/train",
            "repository",
            "/repos/octo/train",
            "https://api.github.com",
        ),
        ("https://github.com/octo", "organisation", "/orgs/octo", "https://api.github.com"),
        (
            "https://github.com/enterprises/acme",
            "enterprise",
            "/enterprises/acme",
            "https://api.github.com",
        ),
        (
            "https://acme.ghe.com/octo/train",
            "repository",
            "/repos/octo/train",
            "https://api.acme.ghe.com",
        ),
        (
            "https://acme.ghe.com/enterprises/acme",
            "enterprise",
            "/enterprises/acme",
            "https://api.acme.ghe.com",
        ),
        (
            "https://git.acme.test/octo/train",
            "repository",
            "/repos/octo/train",
            "https://git.acme.test/api/v3",
        ),
        (
            "https://git.acme.test:8443/octo",
            "organisation",
            "/orgs/octo",
            "https://git.acme.test:8443/api/v3",
        ),
        (
            "https://git.acme.test/enterprises/github",
            "enterprise",
            "/enterprises/github",
            "https://git.acme.test/api/v3",
        ),
    ],
)
def test_an_address_tells_level_calls_and_api(url: str, level: str, root: str, api: str) -> None:
    repository = Repository(url=url)
    assert (level_of(repository), root_of(repository), api_url_of(repository)) == (level, root, api)


@pytest.mark.parametrize(
    ("where", "forges_with"),
    [
        ("octo/train", {ForgeName.GITHUB, ForgeName.GITLAB}),
        ("octo", {ForgeName.GITHUB, ForgeName.GITLAB}),
        ("enterprises/acme", {ForgeName.GITHUB}),
        ("octo/tra", set()),
        ("oct", set()),
        ("octo/train2", set()),
    ],
)
@pytest.mark.parametrize("forge", ForgeName)
def test_whose_jobs_may_run_there(
    forge: ForgeName, where: str, forges_with: set[ForgeName]
) -> None:
    """A group of GitLab's may be called `enterprises`."""
    job = "https://git.acme.test/octo/train"
    here = Repository(url=f"https://git.acme.test/{where}")
    elsewhere = Repository(url=f"https://git.other.test/{where}")
    assert holds(forge, here, job) is (forge in forges_with)
    assert holds(forge, elsewhere, job) is False


def refused(*argv: str, **environ: str) -> list[str]:
    flags, unknown = commandline.flags_of(argv)
    raw = inputs.Raw(flags=flags, environ={"REPO_TOKEN": "canary", **environ}, unknown=unknown)
    request: Any = (inputs.parse_restart if inputs.command_of(raw) == "restart" else inputs.parse)(
        raw, lambda _: None
    )[0]
    return list(forges.refusals(request))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["--repo=https://github.com/octo/train/other"],
            "write `https://github.com/owner/name`, `https://github.com/organisation` or",
        ),
        (
            ["--repo=https://github.com/enterprises"],
            "is not a repository, organisation or enterprise",
        ),
        (
            ["--repo=https://github.com/orgs/octo"],
            "is a page about an organisation; write `https://github.com/octo`",
        ),
        (["--repo=octo/train", "--runner-group=gpu"], "a repository has no runner groups"),
        (
            ["--repo=octo/train", "--runner-version=2.328.0"],
            "GitHub registers no runner older than 2.329.0",
        ),
        (
            ["--repo=https://gitlab.com/octo", "--runner-version=16.11.1"],
            "runner-version 16.11.1: cml-runner needs gitlab-runner 17.1 or later",
        ),
        (
            ["--repo=https://gitlab.com/octo", "--runner-version=17.0.3"],
            "write a newer version",
        ),
        (
            ["restart", "--repo=https://github.com/octo", "--run-id=7"],
            "a run belongs to a repository, and https://github.com/octo is an organisation",
        ),
    ],
)
def test_what_is_not_possible_there_is_said(argv: list[str], told: str) -> None:
    (problem,) = refused(*argv)
    assert told in problem


@pytest.mark.parametrize(
    "argv",
    [
        ["--repo=https://github.com/octo", "--runner-group=gpu"],
        ["--repo=https://github.com/enterprises/acme", "--runner-group=gpu"],
        ["--repo=octo/train", "--runner-version=2.329.0"],
        ["--repo=https://git.acme.test/octo", "--driver=github", "--runner-version=2.311.0"],
        ["--repo=https://gitlab.com/octo"],
        ["--repo=https://gitlab.com/octo", "--runner-version=17.1.0"],
        ["--repo=https://gitlab.com/octo", "--runner-version=18.6.6"],
    ],
)
def test_what_is_possible(argv: list[str]) -> None:
    assert refused(*argv) == []


# --- permissions


@pytest.mark.parametrize("url", EXAMPLES)
def test_what_is_printed_is_documented(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["permissions", "github", f"--repo={url}"], {}) == 0
    printed = capsys.readouterr().out
    assert printed == "\n".join(text(Repository(url=url), restart) for restart in (False, True))
    launching, _, restarting = printed.partition("`restart-token`")
    assert "ctions: read and write" not in launching, "who launches restarts nothing"
    assert "App, installed" not in restarting, "an App's token is good for an hour"
    assert printed in DOCS.read_text("utf-8")


def test_without_an_address_all_levels_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["permissions", "github", "--no-retry"], {}) == 0
    printed = capsys.readouterr().out
    assert [level in printed for level in ("a repository", "an organisation", "an enterprise")] == [
        True
    ] * 3
    assert "actions=write" not in printed, "what restarts nothing needs no right to it"
    assert "organization_self_hosted_runners=write" in printed


def test_the_address_of_the_ci_job_tells_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(
            ["permissions", "github"],
            {"GITHUB_SERVER_URL": "https://git.acme.test", "GITHUB_REPOSITORY": "octo/train"},
        )
        == 0
    )
    assert (
        "https://git.acme.test/settings/tokens/new?description=cml-runner&scopes=repo\n"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--repo=https://gitlab.com/octo/x"], "belongs to `permissions gitlab`"),
        (["--repo=https://github.com/orgs/x"], "write `https://github.com/x`"),
    ],
)
def test_permissions_of_no_place_at_github(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["permissions", "github", *argv], {}) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words", "absent"),
    [
        (
            ["--repo=https://gitlab.com/octo/train"],
            [
                "scopes create_runner, manage_runner, read_api",
                "https://gitlab.com/octo/train/-/settings/access_tokens?name=cml-runner&scopes=",
                "https://gitlab.com/groups/octo/train/-/settings/access_tokens?",
                "https://gitlab.com/-/user_settings/personal_access_tokens?",
                "`restart-token`",
            ],
            ["GitHub"],
        ),
        (["--no-retry"], ["https://gitlab.com/GROUP/PROJECT/-/settings"], ["`restart-token`"]),
    ],
)
def test_permissions_at_gitlab(
    argv: list[str], words: list[str], absent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["permissions", "gitlab", *argv], {}) == 0
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []
    assert [word for word in absent if word in printed] == []


def test_permissions_of_a_cluster_are_for_the_runner_of_the_repository(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever says it: the address or `driver`."""
    pods = ["permissions", "kubernetes", "--cloud-kubernetes-containers=kubernetes"]
    printed = []
    for more in ["--repo=https://gitlab.com/octo/train", "--driver=gitlab", "--driver=github"]:
        assert cli.main([*pods, more], {}) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]
