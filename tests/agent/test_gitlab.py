"""The agent with gitlab-runner: its configuration, what its log means, and how it is asked to
end."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent import gitlab, restart
from runner_action.agent.events import Event, JobFinished, JobStarted, Online, RunnerExited, Settled
from runner_action.agent.process import Child
from tests.agent.test_spec import SPEC


def forge(tmp_path: Path, **fields: Any) -> gitlab.Forge:
    (tmp_path / "runner").mkdir(exist_ok=True)
    where = {
        "api_url": "https://git.test/code/api/v4",
        "repository_url": "https://git.test/code/octo/train",
    }
    usual = {"name": "cml-1", "forge": "gitlab", "runner_token": "glrt-x", "single": False}
    return gitlab.Forge(
        dataclasses.replace(SPEC, **{**usual, **where, **fields}),
        tmp_path / "runner",
        {"PATH": str(tmp_path / "bin"), "HOME": "/home/runner"},
        {},
    )


def docker(tmp_path: Path, code: int) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "bin" / "docker").chmod(0o755)


def written(member: gitlab.Forge, tmp_path: Path) -> str:
    assert member.environment(tmp_path, tmp_path / "jobs") == {
        "PATH": str(tmp_path / "bin"),
        "HOME": "/home/runner",
    }
    config = tmp_path / "runner/config.toml"
    assert config.stat().st_mode & 0o777 == 0o600
    return config.read_text("utf-8")


def test_without_docker_jobs_run_in_the_shell(tmp_path: Path) -> None:
    member = forge(
        tmp_path,
        environment={"HTTPS_PROXY": 'http://me:"pw"@größe:1', "NOTE": "🚂"},
        docker_volumes=("/a:/b",),
    )
    assert (
        written(member, tmp_path)
        == 'concurrent = 1\n[[runners]]\nname = "cml-1"\nurl = "https://git.test/code"\ntoken ='
        ' "glrt-x"\nexecutor = "shell"\nenvironment ='
        ' ["HTTPS_PROXY=http://me:\\"pw\\"@größe:1", "NOTE=🚂"]\npre_build_script = ""\nshell ='
        ' "bash"\nbuilds_dir ='
        f' "{tmp_path}/runner/builds"\ncache_dir = "{tmp_path}/runner/cache"\n'
    )


def test_with_docker_jobs_run_in_containers(tmp_path: Path) -> None:
    docker(tmp_path, 0)
    text = written(forge(tmp_path, docker_volumes=("/data:/data:ro",)), tmp_path)
    assert text.endswith(
        'executor = "docker"\nenvironment = []\npre_build_script = ""\n[runners.docker]\nimage ='
        ' "ubuntu:24.04"\nvolumes = ["/cache", "/data:/data:ro"]\n'
    )


def test_in_a_pod_that_may_make_others_jobs_are_pods(tmp_path: Path) -> None:
    member = forge(tmp_path, cloud="kubernetes")
    member._env["CML_RUNNER_NAMESPACE"] = "runners"
    config = member.config(docker=False)
    assert (config["executor"], config["kubernetes"]) == (
        "kubernetes",
        {"namespace": "runners", "image": "ubuntu:24.04"},
    )
    assert '[runners.kubernetes]\nnamespace = "runners"\n' in gitlab.toml(config)


def test_the_docker_beside_a_pod_has_no_gpu_of_its_node(tmp_path: Path) -> None:
    device = tmp_path / "bus/pci/devices/0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert forge(tmp_path).config(docker=True, sysfs=tmp_path)["docker"]["gpus"] == "all"
    assert (
        "gpus"
        not in forge(tmp_path, cloud="kubernetes").config(docker=True, sysfs=tmp_path)["docker"]
    )


def test_docker_that_does_not_answer_is_no_docker(tmp_path: Path) -> None:
    docker(tmp_path, 1)
    assert 'executor = "shell"' in written(forge(tmp_path), tmp_path)


@pytest.mark.parametrize(("executor", "works"), [("", True), ("shell", False), ("docker", True)])
def test_the_executor_can_be_chosen(executor: str, works: bool, tmp_path: Path) -> None:
    docker(tmp_path, 0)
    text = written(forge(tmp_path, executor=executor), tmp_path)
    assert ('executor = "docker"' in text) is works


def test_docker_that_was_chosen_and_does_not_work_is_a_failure(tmp_path: Path) -> None:
    docker(tmp_path, 1)
    with pytest.raises(OSError, match="gitlab-executor: docker"):
        written(forge(tmp_path, executor="docker"), tmp_path)


def test_containers_are_privileged_if_the_user_wants_it(tmp_path: Path) -> None:
    assert "privileged" not in forge(tmp_path).config(docker=True)["docker"]
    assert forge(tmp_path, privileged=True).config(docker=True)["docker"]["privileged"] is True


def test_containers_see_the_gpu(tmp_path: Path) -> None:
    sysfs = tmp_path / "sys"
    device = sysfs / "bus/pci/devices/0000:00:1e.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    table = forge(tmp_path).config(docker=True, sysfs=sysfs)["docker"]
    assert table["gpus"] == "all"
    # PyTorch's loaders pass batches by shared memory, of which Docker gives 64 MB.
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert table["shm_size"] == half
    assert "gpus" not in forge(tmp_path).config(docker=True, sysfs=tmp_path)["docker"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_configuration_is_toml(tmp_path: Path) -> None:
    tomllib = __import__("tomllib")
    docker(tmp_path, 0)
    text = written(forge(tmp_path, environment={"A": 'quote " backslash \\ tab\t 🚂'}), tmp_path)
    (runner,) = tomllib.loads(text)["runners"]
    assert runner["environment"] == ['A=quote " backslash \\ tab\t 🚂']
    assert runner["docker"]["image"] == "ubuntu:24.04"


@pytest.mark.parametrize("docker", [False, True])
def test_jobs_begin_with_what_the_launch_says(docker: bool, tmp_path: Path) -> None:
    script = '[ "$A" != 1 ]||echo "B"'
    text = gitlab.toml(forge(tmp_path, pre_build_script=script).config(docker))
    assert 'pre_build_script = "[ \\"$A\\" != 1 ]||echo \\"B\\""\n' in text


def test_the_command_of_a_single_runner(tmp_path: Path) -> None:
    assert forge(tmp_path).command[3:] == (
        "run-single",
        "--config",
        "config.toml",
        "--runner",
        "cml-1",
    )
    assert forge(tmp_path, single=True).command[-2:] == ("--max-builds", "1")
    assert "glrt-x" not in " ".join(forge(tmp_path).command)


def line(text: str, **fields: object) -> str:
    entry = {**fields, "level": "info", "msg": text, "time": "2026-11-23T08:00:00Z"}
    return json.dumps(entry, separators=(",", ":"))


def submitting(how: str, status: str, code: int = 200) -> str:
    told = {"job-status": status, "code": code}
    return line("Submitting job to coordinator..." + how, job=7, **told)


RECEIVED = line(
    "Checking for jobs... received",
    job=7,
    repo_url="https://git.test/code/octo/sub/train.git",
    runner="glrt-x",
)
LOG: list[tuple[str, list[Event]]] = [
    (line("Starting runner for https://git.test/code with token glrt-x ..."), [Online(1.0)]),
    (
        RECEIVED,
        [JobStarted(1.0, "7 of octo/sub/train", float("inf"), ref=("octo/sub/train", 7, None))],
    ),
    (line("Job succeeded", job=7, duration_s=1), [JobFinished(1.0, "0 of ")]),
    (line("Job failed: exit status 1", job=7), [JobFinished(1.0, "0 of ")]),
    (
        line("Job failed (system failure): aborted: interrupt", job=7),
        [JobFinished(1.0, "0 of ")],
    ),
    (submitting("ok", "success"), [Settled(1.0)]),
    (submitting(" job failed", "failed"), [Settled(1.0)]),
    (submitting("ok", "running"), []),
    (submitting("accepted, but not yet completed", "running"), []),
    (submitting(" failed", ""), []),
    (submitting(" job failed", "canceled"), []),
    (line("Appending trace to coordinator...ok", **{"job-status": "running"}), []),
    (line("Failed to process build", error="exit status 1"), [Settled(1.0)]),
    (line("Job succeeded"), []),
    (line("Checking for jobs... failed", status="couldn't execute POST"), []),
    ("Job succeeded", []),
    ("[1, 2]", []),
    ('{"level": "info"}', []),
    ('{"msg": 7}', []),
    ('{"msg": "Checking for jobs... received"}', []),
]


@pytest.mark.parametrize("end", ["Job succeeded", "Job failed: exit status 1"])
@pytest.mark.parametrize(
    ("how", "status", "code", "over"),
    [
        ("ok", "success", 200, True),
        ("ok", "", 200, True),  # GitLab before 16.9 does not say the status
        ("ok", "canceled", 200, True),  # a person was faster
        (" job failed", "canceled", 403, True),
        (" job failed", "", 404, True),  # it was erased, or its project
        ("ok", "running", 200, False),  # an update that was under way
        ("accepted, but not yet completed", "", 202, False),
        (" failed", "", 500, False),
        (" failed", "", -1, False),
    ],
)
def test_after_its_end_a_job_is_over_when_gitlab_wants_no_more_of_it(
    end: str, how: str, status: str, code: int, over: bool, tmp_path: Path
) -> None:
    member = forge(tmp_path)
    for _ in range(2):  # the next job begins as the first did
        assert isinstance(member.heard(RECEIVED, 1.0)[0], JobStarted)
        assert member.heard(submitting("ok", "", 200), 1.0) == []
        assert isinstance(member.heard(line(end, job=7), 1.0)[0], JobFinished)
        assert member.heard(submitting(how, status, code), 1.0) == [Settled(1.0)] * over


@pytest.mark.parametrize(("text", "means"), LOG, ids=range(len(LOG)))
def test_what_a_line_of_its_log_means(text: str, means: list[Event], tmp_path: Path) -> None:
    assert forge(tmp_path).heard(text, 1.0) == means


LABEL = "com.gitlab.gitlab-runner.job.id=7"
FORBIDDEN = line("Checking for jobs... forbidden", status="403 Forbidden")
OWN = '{"message":"403 Forbidden"}'
FOREIGN = "<html><title>403 Forbidden</title></html>"


@pytest.mark.parametrize(
    ("status", "text", "unknown"),
    [
        (403, OWN, True),
        (403, FOREIGN, False),
        (200, "{}", False),
        (502, OWN, False),
        (0, "", False),
    ],
)
def test_only_gitlab_itself_says_that_it_does_not_know_a_runner(
    status: int, text: str, unknown: bool, tmp_path: Path
) -> None:
    """When it asks for jobs, and when it leaves. Status 0: there is no response."""
    asked = []

    class Answered(gitlab.Forge):
        def ask(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, str]:
            asked.append((method, path))
            if not status:
                raise TimeoutError("timed out")
            return status, text

    member = forge(tmp_path)
    member.__class__ = Answered
    assert member.heard(FORBIDDEN, 1.0) == ([RunnerExited(1.0, 1, True)] if unknown else [])
    assert (member.leave() == "gone") is unknown
    assert asked == [("POST", "/runners/verify"), ("DELETE", "/runners")]


LISTED = """2026-11-23 07:59:00 +0000 UTC before
2026-11-23 07:59:10 +0000 UTC left com.example.job=7
2026-11-23 07:59:20 +0000 UTC left2
2026-11-23 07:59:30 +0000 UTC helper a=b,com.gitlab.gitlab-runner.managed=true
2026-11-23 07:59:40 +0000 UTC service com.gitlab.gitlab-runner.com.gitlab.gitlab-runner.managed=true
2026-11-23 08:00:01 +0000 UTC next
"""


def listing(tmp_path: Path, before: str) -> None:
    """A Docker that says `before` when it lists what runs before the first job, and notes what is
    removed."""
    docker(tmp_path, 0)
    (tmp_path / "listed").write_text(LISTED)
    (tmp_path / "bin/docker").write_text(
        f"""#!/bin/sh
case "$*" in
info) ;;
"ps -q") {before};;
ps*) cat {tmp_path}/listed;;
*) shift 2; echo "$@" >> {tmp_path}/removed;;
esac
"""
    )


@pytest.mark.parametrize(
    ("cloud", "removed"), [("aws", "left left2\n"), ("", ""), ("kubernetes", "")]
)
def test_what_a_job_left_running_ends_before_the_next(
    cloud: str, removed: str, tmp_path: Path
) -> None:
    """Not what ran before the first job, what gitlab-runner started itself, nor what the next job
    has started meanwhile; and only on a cloud's machine."""
    listing(tmp_path, before="echo before")
    member = forge(tmp_path, cloud=cloud)
    member._env["PATH"] += ":/usr/bin:/bin"
    (tmp_path / "removed").touch()
    for _ in range(2):  # gitlab-runner may be started again
        member.environment(tmp_path, tmp_path / "jobs")
        member.heard(line("Job succeeded", job=7), 1.0)
        member.tidy()
    assert (tmp_path / "removed").read_text() == removed * 2


def test_what_could_not_be_listed_before_a_job_is_not_removed_after_it(tmp_path: Path) -> None:
    listing(tmp_path, before="exit 1")
    member = forge(tmp_path, cloud="aws")
    member._env["PATH"] += ":/usr/bin:/bin"
    member.environment(tmp_path, tmp_path / "jobs")
    member.heard(line("Job succeeded", job=7), 1.0)
    member.tidy()
    assert not (tmp_path / "removed").exists()


def test_a_docker_that_does_not_answer_holds_up_no_runner(tmp_path: Path) -> None:
    docker(tmp_path, 0)
    (tmp_path / "bin/docker").write_text("#!/bin/sh\n[ $1 = info ] || exec sleep 60\n")
    (tmp_path / "bin/timeout").write_text("#!/bin/sh\nexec /usr/bin/timeout 0.1 $2 $3 $4\n")
    (tmp_path / "bin/timeout").chmod(0o755)
    member = forge(tmp_path, cloud="aws")
    member._env["PATH"] += ":/usr/bin:/bin"
    began = time.monotonic()
    member.environment(tmp_path, tmp_path / "jobs")
    member.tidy()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('[ "$1" = ps ] && echo abc || echo 4711', [4711]),
        ("true", []),
        ("echo cannot connect; exit 1", None),
        ('[ "$1" = ps ] && echo abc || { echo gone; exit 1; }', None),
    ],
    ids=["one", "none", "no daemon", "ended meanwhile"],
)
@pytest.mark.parametrize("executor", ["", "shell"])
def test_containers_of_the_job_show_that_there_is_one(
    answer: str, found: list[int] | None, executor: str, tmp_path: Path
) -> None:
    """A look that fails decides nothing; without Docker there is none to ask."""
    docker(tmp_path, 0)
    member = forge(tmp_path, cloud="aws", executor=executor)
    member._env["PATH"] += ":/usr/bin:/bin"
    member.environment(tmp_path, tmp_path / "jobs")
    member.heard(RECEIVED, -gitlab.QUIET)
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{answer}\n'
    (tmp_path / "bin/docker").write_text(script)
    (tmp_path / "asked").touch()
    expected = [] if executor == "shell" else found
    assert member.outputs(0) == (expected or [])
    assert member.works(0) is (expected != [])
    member.heard(RECEIVED, time.monotonic())
    assert member.works(0), "its log has just spoken of one"
    unreached = json.dumps({"msg": "Submitting job to coordinator... failed"})
    member.heard(unreached, time.monotonic())
    assert member.works(0), "GitLab cannot be reached"
    wanted = json.dumps({"msg": "Submitting job to coordinator... job failed"})
    member.heard(wanted, time.monotonic())
    assert member.works(0) is (expected != []), "GitLab wants no more of it"
    asked = (tmp_path / "asked").read_text().splitlines()
    looks = [] if executor == "shell" else ["ps -q --filter label=" + LABEL] * 3
    assert [words for words in asked if words[:2] == "ps"] == looks


def runner(tmp_path: Path, script: str) -> tuple[Child, list[int]]:
    """A child that answers SIGQUIT as the script says, once it says so."""
    codes: list[int] = []
    child = Child.start(
        ["sh", "-c", script],
        tmp_path,
        {"PATH": "/usr/bin:/bin"},
        tmp_path / "runner.log",
        codes.append,
    )
    end = time.monotonic() + 10
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return child, codes


def test_an_idle_runner_ends_when_asked(tmp_path: Path) -> None:
    member = forge(tmp_path)
    child, _ = runner(tmp_path, "trap 'exit 0' QUIT; touch ready; while :; do sleep 0.05; done")
    assert member.retire(child)
    assert member.ended(0) == (0, False)


PROGRESS = [
    '"Appending trace to coordinator...ok", "job-status":"running"',
    '"Updating job...", "job":7',
    '"Submitting job to coordinator... job failed", "job-status":"failed"',
]
"""Of network/gitlab.go: gitlab-runner says what GitLab calls the job in several lines a job."""


@pytest.mark.parametrize("end", ["Job succeeded", "Job failed: exit status 3", ""])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_runner_that_does_not_end_at_once_may_have_been_given_a_job(
    end: str, earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitlab, "QUIT_SECONDS", 0.3)
    member = forge(tmp_path)
    progress = [f'{{"level":"info","msg":{text}}}' for text in PROGRESS]
    whole = [RECEIVED, *progress, line("Job succeeded", job=6, **{"job-status": "success"})]
    messages = [*(whole if earlier else []), RECEIVED, *progress]
    messages += [line(end, job=7)] if end else []
    over = bool(end)
    child, _ = runner(tmp_path, "trap '' QUIT; touch ready; while :; do sleep 0.05; done")
    (tmp_path / "runner.log").write_text("\n".join(messages) + "\n")
    assert member.retire(child) is over
    assert member.ended(0) == (0 if over else 2, False), "2: to be started anew"
    child.stop(0, lambda: True)


@pytest.mark.parametrize(
    ("job", "tries", "limit", "why_not"),
    [
        (7, [7], 5, ""),
        (7, [3, 7], 1, "restart-limit 1 is reached"),
        (7, [3, 7], 2, ""),
        (7, [7, 9], 5, "it was already retried"),
        (7, [7], 0, "restart-limit 0 is reached"),
    ],
)
def test_tries_of_a_job_are_counted(job: int, tries: list[int], limit: int, why_not: str) -> None:
    assert restart.tried(job, tries, limit) == why_not
