"""`cloud: local`, and a `cloud` that was forgotten in a CI job."""

from __future__ import annotations

import pytest

from runner_action import cli, inputs
from runner_action.errors import InputError
from runner_action.request import LaunchRequest
from tests.test_combinations import READ

GITHUB = {"GITHUB_ACTIONS": "true"}
GITLAB = {"GITLAB_CI": "true"}
TERMINAL: dict[str, str] = {}
PLACES = {"terminal": TERMINAL, "github": GITHUB, "gitlab": GITLAB}
MEANS = (
    "write a cloud (`aws`, `azure`, `gcp`, `kubernetes`), or `local` to make the machine of this"
    " job itself the runner"
)


def parsed(environ: dict[str, str], *words: str) -> LaunchRequest:
    pairs = [word.removeprefix("--").partition("=") for word in words]
    flags = {name: [text or "true"] for name, _, text in pairs}
    flags = {"repo": ["octo/train"], "token": ["canary"], "driver": ["github"], **flags}
    return inputs.parse(inputs.Raw(flags=flags, environ=environ), lambda _: None)[0]


def problems(environ: dict[str, str], *words: str) -> list[str]:
    try:
        parsed(environ, *words)
    except InputError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("command", [[], ["--command=launch"]])
@pytest.mark.parametrize("environ", [GITHUB, GITLAB])
def test_a_launch_of_a_job_needs_a_cloud(environ: dict[str, str], command: list[str]) -> None:
    (problem,) = problems(environ, *command)
    assert problem.startswith("input cloud is missing: ")
    assert MEANS in problem


@pytest.mark.parametrize("command", [[], ["--command=launch"]])
def test_without_a_cloud_a_terminal_is_the_runner(command: list[str]) -> None:
    assert parsed(TERMINAL, *command).cloud is None


@pytest.mark.parametrize("command", ["cleanup", "status"])
@pytest.mark.parametrize("place", PLACES)
def test_no_other_command_needs_a_cloud_in_a_job(place: str, command: str) -> None:
    assert problems(PLACES[place], f"--command={command}") == []


def test_what_is_missing_has_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {**GITLAB, "REPO_TOKEN": "canary", "CML_REPO": "octo/train"}
    assert cli.main(["launch"], environ) == 2
    assert "input cloud is missing" in capsys.readouterr().out


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("word", ["local", "Local", "LOCAL", "'local'"])
def test_local_means_this_machine(word: str, place: str) -> None:
    given = parsed(PLACES[place], f"--cloud={word}")
    assert given == parsed(TERMINAL)
    assert (given.cloud, given.max_lifetime, given.labels) == (None, None, ("cml",))


@pytest.mark.parametrize("name", [name for name, (_, flags) in READ.items() if flags])
@pytest.mark.parametrize("driver", ["github", "gitlab"])
def test_local_refuses_what_no_cloud_refuses(name: str, driver: str) -> None:
    words = [f"--driver={driver}", *READ[name][1]]
    assert problems(TERMINAL, "--cloud=local", *words) == problems(TERMINAL, *words)
    assert bool(problems(GITHUB, "--cloud=local", *words)) == bool(problems(TERMINAL, *words))


@pytest.mark.parametrize("command", ["destroy", "reap"])
def test_a_command_that_needs_machines_of_a_cloud(command: str) -> None:
    (problem,) = problems(GITHUB, f"--command={command}", "--name=train", "--cloud=local")
    assert problem == (
        "input cloud is missing: write the cloud that has the machines, one of `aws`, `azure`,"
        " `gcp`, `kubernetes`"
    )


def test_a_mistyped_local() -> None:
    (problem,) = problems(GITHUB, "--cloud=loca")
    assert problem.endswith("did you mean `local`?")
