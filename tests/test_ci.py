"""What is written to each CI: outputs, summary, masks, annotations; the name from the job."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from runner_action import ci, files, inputs
from runner_action.ci import job as jobs
from runner_action.ci import report
from runner_action.ci.base import MARK_TITLE, runners_marked
from runner_action.ci.cml import cml_line
from runner_action.ci.github import GitHubFront
from runner_action.ci.gitlab import GitLabFront
from runner_action.ci.terminal import TerminalFront
from runner_action.errors import ConfigurationError, InputError
from runner_action.model import App, Instance, Launched, ProviderName, Report, Secret
from tests.test_launch import request

INSTANCE = Instance(
    provider=ProviderName.AWS,
    id="i-1",
    name="cml-1",
    region="us-west-1",
    zone="us-west-1a",
    instance_type="m6i.2xlarge",
    spot=True,
    address="203.0.113.7",
)
ONE = Launched(
    runner_name="cml-1",
    label="cml-1",
    labels=("cml", "gpu"),
    reused=False,
    launch_seconds=31.25,
    instance=INSTANCE,
)
REPORT = Report(
    launched=(ONE,),
    tried=("m6i.2xlarge spot in us-west-1b: full", "m6i.2xlarge spot in us-west-1a: yes"),
    stages={"created": 4.0, "online": 31.25},
)
GITHUB_JOB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "octo/train",
    "GITHUB_RUN_ID": "1",
    "GITHUB_RUN_ATTEMPT": "1",
    "GITHUB_JOB": "launch",
    "GITHUB_ACTION": "__run",
    "RUNNER_NAME": "GitHub Actions 7",
}
TOKEN = Secret("ghp_x")
GITLAB_JOB = {
    "GITLAB_CI": "true",
    "CI_SERVER_URL": "https://gitlab.com",
    "CI_PROJECT_PATH": "octo/train",
    "CI_PIPELINE_ID": "2",
    "CI_JOB_ID": "3",
}


def test_outputs_are_those_of_the_schema() -> None:
    assert set(report.outputs([ONE])) == set(inputs.schema()["$defs"]["outputs"]["properties"]) - {
        "restarted",
        "status",
        "removed",
    }
    outputs = report.outputs([ONE])
    assert outputs["instance-ip"] == outputs["instanceIp"] == "203.0.113.7"
    assert (outputs["labels"], outputs["spot"], outputs["reused"], outputs["launch-seconds"]) == (
        "cml,gpu",
        "true",
        "false",
        "31.25",
    )
    assert json.loads(outputs["runners"])[0]["instance-id"] == "i-1"


@pytest.mark.parametrize("key", [key for key in GITHUB_JOB if key != "GITHUB_ACTIONS"])
def test_the_name_is_the_same_for_the_same_step_and_another_for_any_other(key: str) -> None:
    first = jobs.run_of(GITHUB_JOB, TOKEN)
    assert first == jobs.run_of(dict(GITHUB_JOB), TOKEN)
    assert jobs.run_of({**GITHUB_JOB, key: "9"}, TOKEN).derived_name != first.derived_name
    assert first.title == "octo/train run 1 attempt 1"


@pytest.mark.parametrize("job", [GITHUB_JOB, GITLAB_JOB], ids=["github", "gitlab"])
def test_the_name_is_known_to_nobody_without_the_credentials(job: dict[str, str]) -> None:
    """All that it is made from but these is public before the launch."""
    askers: list[Secret | App] = [TOKEN, Secret("ghp_y")]
    askers += [App(id="1", key=Secret("k")), App(id="1", key=Secret("l"))]
    runs = [jobs.run_of(job, asker) for asker in askers]
    assert len({run.derived_name for run in runs}) == len({run.key for run in runs}) == len(askers)
    assert not any(secret in str(runs) for secret in ("ghp_", "key=Secret"))


def test_the_name_in_gitlab_and_outside_of_ci() -> None:
    assert jobs.run_of(GITLAB_JOB, TOKEN) == jobs.run_of(GITLAB_JOB, TOKEN)
    named = {**GITLAB_JOB, "CI_JOB_NAME": "launch: [gpu, 1/3]"}
    title = "octo/train pipeline 2 launch---gpu--1/3- job 3"
    assert jobs.run_of(named, TOKEN).title == title
    by_hand = [jobs.run_of({}, TOKEN) for _ in range(2)]
    assert by_hand[0].key != by_hand[1].key
    assert by_hand[0].derived_name.startswith("cml-")


NOON = "2026-11-28T12:00:{:02}Z"
LATER = "2026-11-28T13:02:00+01:00"


@pytest.mark.parametrize(
    ("started", "attempt"),
    [(NOON.format(59), 1), (LATER, 2), ("soon", 1), (LATER[:19], 1), ("", 1)],
)
def test_a_gitlab_job_may_be_another_try_if_its_pipeline_is_old(started: str, attempt: int) -> None:
    names = {"CI_PROJECT_URL": "https://gitlab.com/octo/train", "CI_JOB_NAME": "launch"}
    times = {"CI_PIPELINE_CREATED_AT": NOON.format(1), "CI_JOB_STARTED_AT": started}
    job = jobs.run_of({**GITLAB_JOB, **names, **times}, TOKEN).job
    assert job
    assert job.attempt == attempt


def test_github_gets_its_files(tmp_path: Path) -> None:
    environ = {
        **GITHUB_JOB,
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    front = GitHubFront(environ, io.StringIO())
    front.done(report.outputs([ONE]), report.summary(REPORT, request()))
    lines = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert lines["runner-name"] == "cml-1"
    summary = (tmp_path / "summary").read_text()
    assert (
        "| `cml-1` | cml,gpu | i-1 | m6i.2xlarge (spot) | us-west-1a | 203.0.113.7 | 31 s |"
        in summary
    )
    assert "us-west-1b: full" in summary
    assert "online 31.2" in summary


def test_the_log_of_a_launch_job_names_its_runners() -> None:
    """As an annotation, which `cml-runner restart` finds later; a reused runner is another
    launch's."""
    out = io.StringIO()
    GitHubFront({}, out).done(report.outputs([ONE, replace(ONE, runner_name="cml-2")]), "")
    (title, message), *_ = re.findall(r"^::notice title=([^:]*)::(.*)$", out.getvalue(), re.M)
    assert (title, runners_marked(message)) == (MARK_TITLE, ["cml-1", "cml-2"])
    out = io.StringIO()
    GitHubFront({}, out).done(report.outputs([replace(ONE, reused=True)]), "")
    assert out.getvalue() == ""


def test_the_summary_says_when_the_machine_ends() -> None:
    assert (
        "The machine shuts down after 300 s without a job, and after 120 h in any case."
        in report.summary(REPORT, request())
    )
    assert "The machine shuts down after one job, and after 2 h in any case." in report.summary(
        REPORT, request("--single", "--max-lifetime=2h")
    )
    assert "never, as `idle-timeout` says" in report.summary(
        REPORT, request("--idle-timeout=never")
    )


def test_the_summary_says_which_re_run_creates_a_machine() -> None:
    """GitHub's other button leaves the job waiting for a day."""
    advice = "After that, *Re-run failed jobs* finds no machine: use *Re-run all jobs*"
    assert f"in any case. {advice}" in report.summary(REPORT, request())
    elsewhere = (request("--cloud=local"), request("--driver=gitlab"))
    assert not any("Re-run" in report.summary(REPORT, one) for one in elsewhere)


def test_github_commands_are_escaped_and_folded() -> None:
    out = io.StringIO()
    front = GitHubFront(GITHUB_JOB, out)
    front.mask("first-line\nno\nsecond-line%")
    front.error(InputError(["a", "b"]))
    front.crash("Traceback…")
    logger = logging.Logger("test")
    logger.addHandler(front.handler())
    logger.warning("50% gone\nreally")
    logger.error("The console ends:\nline 1\nline 2")
    logger.info("plain")
    text = out.getvalue()
    assert "::add-mask::first-line\n::add-mask::second-line%25\n" in text
    assert (
        "::error title=cml-runner::2 problems with the inputs:%0A  1. a%0A  2. b%0ANothing was"
        " created." in text
    )
    assert "::group::Traceback, for the report\nTraceback…\n::endgroup::" in text
    assert "::warning::50%25 gone really\n" in text
    folded = re.search(
        r"::group::The console ends:\n::stop-commands::(\w+)\nline 1\nline"
        r" 2\n::(\w+)::\n::endgroup::\nplain\n",
        text,
    )
    assert folded
    assert folded[1] == folded[2]


def test_gitlab_gets_a_dotenv_file(tmp_path: Path) -> None:
    out = io.StringIO()
    front = GitLabFront({**GITLAB_JOB, "CI_PROJECT_DIR": str(tmp_path)}, out)
    front.done(report.outputs([ONE]), report.summary(REPORT, request()))
    front.error(ConfigurationError("what", "do this"))
    lines = dict(
        line.split("=", 1) for line in (tmp_path / "cml-runner.env").read_text().splitlines()
    )
    assert (lines["RUNNER_NAME"], lines["INSTANCE_IP"], lines["RUNNER_LAUNCH_SECONDS"]) == (
        "cml-1",
        "203.0.113.7",
        "31.25",
    )
    assert all(re.fullmatch("(RUNNER|INSTANCE)[A-Z_]*", name) for name in lines), (
        "a variable of a report is stronger than a job's own"
    )
    assert "what\ndo this" in out.getvalue()


def test_what_gitlab_would_not_take_is_left_out_of_the_dotenv_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    GitLabFront({"CI_PROJECT_DIR": str(tmp_path)}, io.StringIO()).done(
        report.outputs([ONE] * 20), ""
    )
    text = (tmp_path / "cml-runner.env").read_text()
    assert len(text.encode()) < 5120
    assert "RUNNER_NAME=cml-1\n" in text
    assert "RUNNERS=" not in text
    assert "RUNNERS is left out" in caplog.text


def test_a_terminal_gets_a_block_or_json() -> None:
    out, err = io.StringIO(), io.StringIO()
    TerminalFront(out, err, as_json=True).done(report.outputs([ONE]), "")
    assert json.loads(out.getvalue())["runners"][0]["runner-name"] == "cml-1"
    out.truncate(0)
    TerminalFront(out, err, as_json=False).done(
        report.outputs([ONE]), report.summary(REPORT, request())
    )
    assert "Runner online" in out.getvalue()
    assert err.getvalue() == ""


def test_which_front() -> None:
    assert isinstance(ci.front_for(GITHUB_JOB, as_json=False), GitHubFront)
    assert isinstance(ci.front_for(GITLAB_JOB, as_json=False), GitLabFront)
    assert isinstance(ci.front_for({}, as_json=False), TerminalFront)
    assert isinstance(ci.front_for(GITHUB_JOB, as_json=True), TerminalFront)


def test_the_line_that_scripts_of_cml_search() -> None:
    """The keys of cml-behaviour.md 2.3, in its order."""
    line = json.loads(cml_line(ONE, request("--cloud-metadata=a=b", "--idle-timeout=never")))
    assert line["instanceIp"] == "203.0.113.7"
    assert (
        line["id"],
        line["region"],
        line["instanceType"],
        line["idleTimeout"],
        line["metadata"],
    ) == ("i-1", "us-west-1", "m6i.2xlarge", -1, {"a": "b"})
    of_old = """awsSecurityGroup awsSubnetId cloud driver id idleTimeout image instanceGpu
        instanceHddSize instanceIp instanceLaunchTime instanceType instancePermissionSet labels
        cmlVersion metadata name region repo single spot spotPrice timeouts
        kubernetesNodeSelector"""
    assert list(line) == of_old.split()
    assert "canary" not in str(line)


def noting(folder: Path, job: str = "3", **more: str) -> GitLabFront:
    folder.mkdir(exist_ok=True)
    environ = {**GITLAB_JOB, "CI_PROJECT_DIR": str(folder), "CI_JOB_ID": job, **more}
    return GitLabFront(environ, io.StringIO())


def test_what_gitlabs_launch_notes_is_out_of_the_tree_and_of_this_job(tmp_path: Path) -> None:
    tree = tmp_path / "octo"
    front = noting(tree)
    assert front.remembered() is None, "nobody could have written it"
    front.remember(["cml-1", "cml-2"])
    assert noting(tree).remembered() == ["cml-1", "cml-2"]
    assert list(tree.iterdir()) == []
    assert noting(tree, job="4").remembered() == []
    (tmp_path / "octo.tmp/cml-runner-3").rename(tmp_path / "octo.tmp/cml-runner-4")
    assert noting(tree, job="4").remembered() is None, "of another job"
    front.remember(["cml-1"])
    noting(tree).forget()
    assert noting(tree).remembered() == []


def planted(tree: Path, note: Path, how: str) -> None:
    """What somebody else put where the note will be."""
    text = json.dumps({"job": "https://gitlab.com 3", "runners": ["prod-deploy"]})
    elsewhere = tree / "elsewhere"
    elsewhere.write_text(text)
    elsewhere.chmod(0o600)
    if how == "a link":
        note.symlink_to(elsewhere)
    elif how == "a second name of a file":
        note.hardlink_to(elsewhere)
    elif how == "a queue":
        os.mkfifo(note, 0o600)
    elif how == "another user's":
        note.write_text(text)
        note.chmod(0o600)
        os.chown(note, 1001, 1001)
    else:
        note.write_text(text)
        note.chmod(0o644)


@pytest.mark.parametrize(
    "how", ["a link", "a second name of a file", "a queue", "another user's", "for all to read"]
)
def test_a_note_that_this_launch_cannot_have_written_says_nothing(how: str, tmp_path: Path) -> None:
    if how == "another user's" and os.geteuid():
        pytest.skip("SKIPPED LOUDLY: only root can give a file away")
    tree, note = tmp_path / "octo", tmp_path / "octo.tmp/cml-runner-3"
    front = noting(tree)
    note.parent.mkdir()
    planted(tree, note, how)
    assert front.remembered() is None
    front.remember(["cml-1"])
    assert front.remembered() == ["cml-1"]
    assert "prod-deploy" in (tree / "elsewhere").read_text(), "nothing was written through it"


def test_outputs_are_written_to_no_place_that_a_branch_chose(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "octo", tmp_path / "profile"
    front = noting(tree)
    elsewhere.write_text("kept")
    (tree / "cml-runner.env").symlink_to(elsewhere)
    front.done(report.outputs([ONE]), "")
    assert elsewhere.read_text() == "kept"
    assert "RUNNER_NAME=cml-1\n" in (tree / "cml-runner.env").read_text()
    assert (tree / "cml-runner.env").stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tree.iterdir()] == ["cml-runner.env"]


def test_a_file_of_the_checkout_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link in it may lead to the job's own environment, which would then be a startup script."""
    tree = tmp_path / "octo"
    (tree / "scripts").mkdir(parents=True)
    (tree / "scripts/setup.sh").write_text("true")
    (tree / "setup.sh").symlink_to("scripts/setup.sh")
    (tree / "environ.sh").symlink_to("/proc/self/environ")
    (tmp_path / "mine.sh").symlink_to(tree / "environ.sh")
    (tmp_path / "mine.pem").write_text("PEM")
    monkeypatch.chdir(tree)
    trees = ["", str(tree)]
    assert files.text_of("setup.sh", trees) == files.text_of(f"{tree}/setup.sh", trees) == "true"
    assert files.text_of("environ.sh", trees) is None
    assert files.text_of("scripts/../../mine.pem", trees) is None
    assert files.text_of(f"{tmp_path}/mine.pem", trees) == "PEM"
    assert files.text_of("environ.sh", [""]) is not None, "a person's own shell"
    assert files.text_of("", trees) is None
