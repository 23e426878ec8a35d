"""What we ship for GitLab, played: the pipeline is made as GitLab makes it, and the runner of its
launch takes the jobs that ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from runner_action import forges, inputs
from runner_action.forges.gitlab.warnings import LATE_IDS
from runner_action.sandbox.forges.gitlab import ci as gitlab_ci
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.variables import Values
from runner_action.sandbox.forges.jobs import Job, Seat
from tests.shipped import INCLUDED, REPOSITORY, ROOT, Definition, pipelines, released

TEMPLATE = released(ROOT / "gitlab-component/templates/launch-runner.yml")
TOKEN = "canary-admin"
LAUNCHING = {
    name: one
    for name, one in pipelines().items()
    if "include" in one and name != "gitlab-component/.gitlab-ci.yml"
}


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    fake = FakeGitLab({TOKEN: ["api"]}, prefix="/git")
    yield fake
    fake.close()


class Played:
    """A pipeline whose launch jobs have read their inputs and made their runners, by `seats`."""

    def __init__(self, gitlab: FakeGitLab, definition: Definition) -> None:
        self.gitlab = gitlab
        self.seats: dict[str, Seat] = {}
        self.warned: list[str] = []
        address = f"{gitlab.project.variables['CI_SERVER_FQDN']}/{REPOSITORY}/launch-runner"
        made = gitlab_ci.Pipelines(gitlab.forge, gitlab.project, {address: TEMPLATE})
        self.run = made.create(definition, self.launch)
        gitlab.forge.wait(self.launched, "the launches")
        assert {job.conclusion for job in self.run.jobs if job.hosted} == {"success"}

    def launched(self) -> bool:
        return all(job.status == "completed" for job in self.run.jobs if job.hosted)

    def launch(self, job: Job, variables: Values) -> str:
        raw = inputs.Raw(flags={}, environ={**variables, "REPO_TOKEN": TOKEN})
        request, self.warned = inputs.parse(raw, lambda _: None)
        forge = forges.forge_for(request, variables["CI_API_V4_URL"])
        made = forge.register_one(job.name, request.labels, "x64")
        seat = self.gitlab.forge.by_id(made.runner_id or 0)
        assert seat
        self.seats[job.name] = seat
        self.gitlab.forge.set_online(seat, online=True)
        return "success"


def test_all_pipelines_are_found() -> None:
    assert {"README.md 2", "gitlab-component/README.md 1"} <= set(LAUNCHING)
    examples = {file.stem for file in (ROOT / "gitlab-component/examples").glob("*.yml")}
    assert len(LAUNCHING) == 2 + len(examples - {"no-component", "reap"})


@pytest.mark.parametrize("name", LAUNCHING)
def test_the_runner_of_a_launch_takes_its_jobs(name: str, gitlab: FakeGitLab) -> None:
    played = Played(gitlab, LAUNCHING[name])
    waiting = [job for job in played.run.jobs if job.labels]
    assert waiting
    for job in waiting:
        assert gitlab_ci.stuck(gitlab.forge, job) == ""
        (launch,) = job.needs
        assert gitlab.forge.next_job(played.seats[launch], wait=0) is job
        gitlab.forge.complete(played.seats[launch], "success")
    assert played.run.done
    assert played.warned == []


# --- who copied what stood in the README once


def binding(label: str, repo: str = "") -> Definition:
    """A pipeline whose job asks for the runner of its launch by that label."""
    component = f"{INCLUDED}@1"
    given = {"cloud": "aws", "labels": f"gpu,{label}", **({"repo": repo} if repo else {})}
    train = {"needs": ["launch-runner"], "tags": [label], "script": ["true"]}
    return {"include": [{"component": component, "inputs": given}], "train": train}


@pytest.mark.parametrize("form", ["train-${}", "${{{}}}", "x-${}-y"])
@pytest.mark.parametrize("repo", ["", "$CI_SERVER_URL/$CI_PROJECT_ROOT_NAMESPACE"])
@pytest.mark.parametrize("name", LATE_IDS)
def test_a_tag_that_gitlab_does_not_expand_is_told_and_the_advice_works(
    name: str,
    repo: str,
    form: str,
    gitlab: FakeGitLab,
) -> None:
    before = Played(gitlab, binding(form.format(name), repo))
    assert gitlab_ci.stuck(gitlab.forge, before.run.jobs[1])
    (warned,) = before.warned
    assert f"GitLab does not expand {name} in `tags:`" in warned
    (advice,) = re.findall(r"write `([^`]+)`", warned)
    after = Played(gitlab, binding(advice, repo))
    assert gitlab_ci.stuck(gitlab.forge, after.run.jobs[1]) == ""
    assert after.warned == []


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("train-123456", True),
        ("gpu,123456", True),
        ("train-12", False),
        ("train-5-12", False),
        ("a1234567,v123456,123456x", False),
        ("cml", False),
    ],
)
def test_only_an_id_of_this_pipeline_is_told(labels: str, told: bool) -> None:
    """A number that is also the pipeline's in its project, or the project's, proves nothing."""
    job = {
        "CI_PIPELINE_ID": "123456",
        "CI_PIPELINE_IID": "12",
        "CI_PROJECT_ID": "5",
        "CI_JOB_ID": "5",
        "CI_PROJECT_URL": "https://gitlab.com/octo/train",
        "CI_SERVER_URL": "https://gitlab.com",
        "REPO_TOKEN": "t",
        "CML_RUNNER_LABELS": labels,
    }

    def warned(**more: str) -> list[str]:
        raw = inputs.Raw({}, {**job, "CML_RUNNER_CLOUD": "aws", **more})
        return inputs.parse(raw, lambda _: "")[1]

    assert len(warned()) == int(told)
    assert warned(CI_PIPELINE_IID="123456") == []
    assert warned(CML_RUNNER_REPO="https://github.com/octo/train", CML_RUNNER_TOKEN="t") == []
    assert warned(CML_RUNNER_COMMAND="status") == []
