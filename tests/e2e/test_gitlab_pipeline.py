"""A pipeline that includes the component, run by someone else's reader of GitLab CI, with the
real launcher, in the embedded world."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from runner_action.sandbox.world import KEY, TOKEN, World
from tests.judges import missing
from tests.sandbox.conftest import all_gone
from tests.shipped import INCLUDED, REPOSITORY, released

ROOT = Path(__file__).parents[2]
READER = ROOT / "tests" / "node_modules" / ".bin" / "gitlab-ci-local"
TEMPLATE = "gitlab-component/templates/launch-runner.yml"
EXAMPLES = sorted((ROOT / "gitlab-component" / "examples").glob("*.yml"))
INPUTS = {"cloud": "aws", "cloud-region": "us-west", "labels": "cml,gpu", "idle-timeout": "5"}
INCLUDE = {"local": TEMPLATE, "inputs": INPUTS}


@pytest.fixture(autouse=True)
def _judge() -> None:
    if not READER.exists():
        missing("gitlab-ci-local is missing; `npm ci --prefix tests` installs it")
    if not shutil.which("rsync"):
        missing("gitlab-ci-local needs rsync (Debian package rsync)")


@pytest.fixture
def world() -> Iterator[World]:
    with World("gitlab", timer_factor=0.02) as made:
        yield made


def readable() -> str:
    """The template without what this reader does not know: `expand` in a job, so it replaces
    variables in every text, and `id_tokens` among defaults."""
    plain = re.sub(r"\{value: (\"[^\"]*\"), expand: false\}", r"\1", released(ROOT / TEMPLATE))
    return plain.replace("default: [id_tokens, ", "default: [")


def repository(folder: Path, origin: str, pipeline: str) -> Path:
    """A clone of a project with that pipeline and our component, as gitlab-ci-local wants it."""
    (folder / TEMPLATE).parent.mkdir(parents=True)
    (folder / TEMPLATE).write_text(readable(), "utf-8")
    (folder / ".gitlab-ci.yml").write_text(pipeline, "utf-8")
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "-qm", "pipeline"],
        ["remote", "add", "origin", origin],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def read(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs gitlab-ci-local there; `variables` are the project's."""
    given = [
        word for name, value in variables.items() for word in ("--variable", f"{name}={value}")
    ]
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder.parent),
    }
    # No Docker here: jobs run in this machine's shell, their `image` left aside.
    argv = [str(READER), "--force-shell-executor", "--no-color", *given, *words]
    return subprocess.run(
        argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def project(world: World) -> dict[str, str]:
    """The variables that GitLab would set for its own project, besides those that
    gitlab-ci-local makes up itself."""
    given = world.job_environ()
    return {
        name: value
        for name, value in given.items()
        if name not in ("GITLAB_CI", "CI_JOB_ID", "CI_JOB_NAME", "CI_PIPELINE_ID")
    }


TRAIN = {
    "stage": "test",
    "needs": ["launch-runner"],
    "tags": ["cml"],
    "script": ['echo "on=$RUNNER_NAME at=$INSTANCE_IP id=$INSTANCE_ID"'],
}


def test_the_component_launches_and_the_dependent_job_knows_the_machine(
    world: World, tmp_path: Path
) -> None:
    folder = repository(
        tmp_path / "clone",
        f"{world.gitlab.repo_url}.git",
        yaml.safe_dump({"include": [INCLUDE], "train": TRAIN}),
    )
    done = read(folder, **project(world))
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    (seat,) = world.forge.seats()
    assert {label for label in seat.labels if not label.startswith("cml-runner-aws-")} == {
        "cml",
        "gpu",
        seat.name,
    }  # and the mark
    (instance,) = world.machines.living
    line = next(line for line in told.splitlines() if "on=" in line and "echo" not in line)
    assert f"on={seat.name} " in line
    assert f"id={instance}" in line
    assert "at= " not in line
    assert "its runner is in use" in told, "after_script ran, and left it alone"
    assert TOKEN not in told
    assert KEY not in told
    job = world.forge.queue_job(["gpu"], 0.2)
    world.forge.wait(lambda: job.status == "completed", "a job on that machine")
    all_gone(world)


DEFAULTS = {
    "image": "python:3.13",
    "before_script": ["pip install --requirement requirements.txt"],
    "after_script": ["echo the job has ended"],
    "services": ["postgres:17"],
    "cache": {"key": "pip", "paths": [".cache/pip"]},
}


def test_a_pipelines_defaults_do_not_reach_the_launch(world: World, tmp_path: Path) -> None:
    """There is no `pip` and no requirements.txt where the launcher runs, and no Docker here."""
    folder = repository(
        tmp_path / "clone",
        f"{world.gitlab.repo_url}.git",
        yaml.safe_dump(
            {
                "default": DEFAULTS,
                "include": [INCLUDE],
                "train": {**TRAIN, "inherit": {"default": False}},
            }
        ),
    )
    done = read(folder, **project(world))
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "its runner is in use" in told
    assert "the job has ended" not in told
    all_gone(world)


OF_REQUESTS = [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}]
BRANCH = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"}
REQUEST = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": ""}
TAG = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "", "CI_COMMIT_TAG": "v1"}


@pytest.mark.parametrize(
    ("rules", "launching"),
    [
        (None, [BRANCH, TAG]),
        (OF_REQUESTS, [REQUEST]),
        ([{"when": "always"}], [BRANCH, TAG, REQUEST]),
    ],
)
def test_the_rules_of_the_launch_decide_which_pipelines_have_it(
    rules: list[dict[str, str]] | None, launching: list[dict[str, str]], tmp_path: Path
) -> None:
    given = {} if rules is None else {"rules": rules}
    train = {**TRAIN, "rules": rules or [{"if": "$CI_COMMIT_BRANCH || $CI_COMMIT_TAG"}]}
    definition = {"include": [{**INCLUDE, "inputs": given}], "train": train}
    folder = repository(
        tmp_path / "clone", "http://forge.test/octo/train.git", yaml.safe_dump(definition)
    )
    for pipeline in (BRANCH, TAG, REQUEST):
        done = read(folder, "--list-json", **pipeline)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = json.loads(done.stdout[done.stdout.index("[\n") :])
        made = {job["name"]: job["when"] != "never" for job in jobs}
        wanted = pipeline in launching
        assert made == {"launch-runner": wanted, "train": wanted}, pipeline


def test_a_launch_job_that_fails_later_takes_its_machine_back(world: World, tmp_path: Path) -> None:
    """As a job does whose `script` the user has added to, or that is cancelled after the launch."""
    more = {"script": ["cml-runner launch", "exit 3"]}
    folder = repository(
        tmp_path / "clone",
        f"{world.gitlab.repo_url}.git",
        yaml.safe_dump({"include": [INCLUDE], "launch-runner": more, "train": TRAIN}),
    )
    done = read(folder, **project(world))
    assert done.returncode != 0
    assert "Deleted machine" in done.stdout + done.stderr
    all_gone(world)


def test_the_example_without_keys_becomes_its_role(world: World, tmp_path: Path) -> None:
    """The job's id token is all there is; whoever plays AWS's token service gives credentials
    for it."""
    pipeline = yaml.safe_load(released(ROOT / "gitlab-component/examples/aws.yml"))
    pipeline["include"] = [
        {"local": TEMPLATE, "inputs": {**pipeline["include"][0]["inputs"], "idle-timeout": "5"}}
    ]
    pipeline["train"]["script"] = TRAIN["script"]
    folder = repository(
        tmp_path / "clone", f"{world.gitlab.repo_url}.git", yaml.safe_dump(pipeline)
    )
    known = {
        name: value
        for name, value in project(world).items()
        if not name.startswith("AWS_ACCESS") and not name.startswith("AWS_SECRET")
    }
    done = read(folder, **known, ID_TOKEN="canary-id-token")
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "AssumeRoleWithWebIdentity" in world.ec2.actions()
    assert "canary-id-token" not in told
    (seat,) = world.forge.seats()
    assert f"on={seat.name} " in told
    all_gone(world)


def test_a_launch_without_keys_is_taken_back_without_keys(world: World, tmp_path: Path) -> None:
    """`after_script` is another shell, and has the job's files: the token is in one of them."""
    pipeline = yaml.safe_load(released(ROOT / "gitlab-component/examples/aws.yml"))
    pipeline["include"] = [{"local": TEMPLATE, "inputs": pipeline["include"][0]["inputs"]}]
    pipeline["launch-runner"]["script"] = ["cml-runner launch", "exit 3"]
    folder = repository(
        tmp_path / "clone", f"{world.gitlab.repo_url}.git", yaml.safe_dump(pipeline)
    )
    known = {
        name: value
        for name, value in project(world).items()
        if not name.startswith(("AWS_ACCESS", "AWS_SECRET"))
    }
    done = read(folder, **known, ID_TOKEN="canary-id-token")
    assert done.returncode != 0
    assert "Deleted machine" in done.stdout + done.stderr
    all_gone(world)


def test_bad_inputs_are_told_once_and_nothing_is_made(world: World, tmp_path: Path) -> None:
    include = {
        "local": TEMPLATE,
        "inputs": {"cloud": "aws", "cloud-region": "us-wst", "count": "0"},
    }
    folder = repository(
        tmp_path / "clone",
        f"{world.gitlab.repo_url}.git",
        yaml.safe_dump({"include": [include], "train": TRAIN}),
    )
    done = read(folder, **project(world))
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "2 problems with the inputs" in told
    assert "did you mean `us-west`" in told
    assert "Nothing to clean up: the launch had no valid inputs, so it created nothing" in told
    assert (world.forge.ever, list(world.machines.living)) == ([], [])


@pytest.mark.parametrize(
    "example", [file for file in EXAMPLES if file.stem != "reap"], ids=lambda file: file.stem
)
def test_every_example_is_read_with_the_component_in_it(example: Path, tmp_path: Path) -> None:
    """The component is put in from this checkout; what it is included as stays under test
    elsewhere."""
    pipeline = yaml.safe_load(released(example))
    pipeline["include"] = [
        {"local": TEMPLATE, "inputs": one["inputs"]} for one in pipeline.get("include", ())
    ]
    folder = repository(
        tmp_path / "clone", "http://forge.test/octo/train.git", yaml.safe_dump(pipeline)
    )
    done = read(folder, "--list-json")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads(done.stdout)
    assert len(jobs) >= 2
    assert any(need["job"].startswith("launch") for job in jobs for need in job.get("needs", []))


def test_the_example_of_a_sweep_is_a_job_of_scheduled_pipelines(tmp_path: Path) -> None:
    text = released(next(file for file in EXAMPLES if file.stem == "reap"))
    folder = repository(tmp_path / "clone", "http://forge.test/octo/train.git", text)
    for source, when in (("schedule", "on_success"), ("push", "never")):
        done = read(folder, "--list-json", CI_PIPELINE_SOURCE=source)
        assert done.returncode == 0, done.stdout + done.stderr
        # A word of warning stands before it: the reader sets this variable itself.
        (job,) = json.loads(done.stdout[done.stdout.index("[\n") :])
        assert (job["name"], job["when"]) == ("reap", when)


@pytest.mark.parametrize("reference", [f"component: {INCLUDED}@1.0.0"])
def test_the_component_is_included_as_users_do_it(reference: str, tmp_path: Path) -> None:
    """From a released project: its repository stands in for the one on gitlab.com, by Git's own
    mapping of addresses."""
    component = tmp_path / "remotes" / f"{REPOSITORY}.git"
    shutil.copytree(ROOT / "gitlab-component", component)
    (component / "templates/launch-runner.yml").write_text(readable(), "utf-8")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "-qm", "1.0.0"],
        ["tag", "1.0.0"],
    ):
        subprocess.run(["git", *words], cwd=component, check=True)
    name, _, value = reference.partition(": ")
    pipeline = yaml.safe_dump({"include": [{name: value, "inputs": INPUTS}], "train": TRAIN})
    folder = repository(tmp_path / "clone", "git@gitlab.com:octo/train.git", pipeline)
    (tmp_path / ".gitconfig").write_text(
        f'[url "file://{tmp_path}/remotes/"]\n  insteadOf = https://gitlab.com:443/\n  insteadOf ='
        " https://gitlab.com/\n  insteadOf = ssh://git@gitlab.com:22/\n[safe]\n  directory = *\n"
    )
    done = read(folder, "--list-json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["name"] for job in json.loads(done.stdout)] == ["launch-runner", "train"]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a server has the template, as a GitLab that is reached without an account."""
    folder = tmp_path / "served"
    (folder / "templates").mkdir(parents=True)
    (folder / "templates/launch-runner.yml").write_text(readable(), "utf-8")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/templates/launch-runner.yml"
    server.shutdown()
    server.server_close()


def test_the_file_is_included_by_its_address(address: str, tmp_path: Path) -> None:
    include = {"remote": address, "inputs": {**INPUTS, "job": "launch-remote"}}
    train = {**TRAIN, "needs": ["launch-remote"]}
    folder = repository(
        tmp_path / "clone",
        "git@gitlab.example:octo/train.git",
        yaml.safe_dump({"include": [include], "train": train}),
    )
    done = read(folder, "--list-json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["name"] for job in json.loads(done.stdout)] == ["launch-remote", "train"]
