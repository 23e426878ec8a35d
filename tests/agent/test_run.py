"""The agent's effects that need no world: the hooks' file, the heartbeat, what is cleaned up
after it."""

from __future__ import annotations

import dataclasses
import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner_action.agent import events, lifecycle
from runner_action.agent.__main__ import main
from runner_action.agent.github import Forge as GitHub
from runner_action.agent.lifecycle import GONE, REFUSED, Phase
from runner_action.agent.process import child_environment
from runner_action.agent.run import Agent
from runner_action.agent.spec import AgentSpec
from runner_action.agent.watchdog import (
    Beat,
    clean_up,
    comes_back,
    first_look,
    read_beat,
    write_beat,
)
from tests.agent.test_spec import SPEC

ROOT_OK = {"RUNNER_ALLOW_RUNASROOT": "1"}


def agent(home: Path, stages: list[str] | None = None) -> Agent:
    return Agent(
        SPEC,
        home,
        ROOT_OK,
        lambda stage, **facts: (stages if stages is not None else []).append(f"{stage} {facts}"),
        now=lambda: 100.0,
    )


def test_jobs_are_read_in_whole_lines_however_they_are_written(tmp_path: Path) -> None:
    living, jobs = agent(tmp_path), tmp_path / "jobs"
    jobs.write_text("started\tocto/train\t7\t1\ttrain\ncomple")
    assert living._next(0.01)[:-1] == [
        events.JobStarted(100.0, "train of run 7, attempt 1", ref=("octo/train", 7, 1))
    ]
    assert living._next(0.01)[:-1] == []
    with jobs.open("a") as file:
        file.write("ted\tocto/train\t7\t1\ttrain\nodd line\nstarted\tocto/train\t8\t2\teval\n")
    found = [type(event) for event in living._next(0.01)[:-1]]
    assert found == [events.JobFinished, events.JobStarted]


@pytest.mark.parametrize(
    ("looks", "unfit"),
    [([None], False), (["slow", None], False), (["slow", "slow"], True)],
)
def test_one_look_ends_no_machine_that_may_have_its_next_job(
    looks: list[str | None], unfit: bool, tmp_path: Path
) -> None:
    living, answers = agent(tmp_path), iter(looks)
    living._start.problem = lambda: next(answers)  # type: ignore[method-assign]
    living._test()
    assert living.queue.empty() is not unfit
    assert list(answers) == []


def test_a_runner_that_cannot_be_begun_is_tried_until_the_start_ends(tmp_path: Path) -> None:
    """A configuration that cannot be written yet, or a Docker that is not there yet."""
    stages: list[str] = []
    living = agent(tmp_path, stages)

    def environment(*_: Path) -> dict[str, str]:
        raise OSError("no Docker")

    living.forge.environment = environment  # type: ignore[assignment,method-assign]
    starting = threading.Thread(target=living._try, args=(living._launch,))
    starting.start()
    starting.join(0.5)
    assert starting.is_alive()
    assert living.queue.empty()
    assert stages == ["waiting {'why': 'runner: no Docker'}"]
    living._start.problems.append(OSError("the start took too long"))
    starting.join(10)
    assert living.queue.get(timeout=1) == events.Failed(100.0, "the start took too long")


@pytest.mark.parametrize(
    ("lines", "code", "event"),
    [
        ("2026-11-23 08:00:00Z: Listening for Jobs", 0, events.Online(100.0)),
        (
            "2026-11-23 08:00:00Z: Job train completed with result: Succeeded",
            0,
            events.Settled(100.0),
        ),
        (
            "Runner listener exit with Session Conflict error, stop the service, no retry needed.",
            0,
            events.RunnerExited(100.0, 5),
        ),
        ("Exiting with unknown error code: 6", 0, events.RunnerExited(100.0, 5)),
        (
            "Runner listener exit with deprecated version exit code: 7.",
            7,
            events.RunnerExited(100.0, 7),
        ),
        (
            "Runner listener exit with 0 return code, stop the service, no retry needed.",
            0,
            events.RunnerExited(100.0, 0),
        ),
        (
            "Runner listener exit with terminated error, stop the service, no retry needed.",
            0,
            events.RunnerExited(100.0, 0),
        ),
        ("Exiting runner...", 0, events.RunnerExited(100.0, 0)),
        ("Error: Exit code 1 of a job: 9", 0, events.RunnerExited(100.0, 0)),
        (
            (
                "The runner no longer exists on the server.\nRunner listener exit with 0 return"
                " code, stop the service, no retry needed."
            ),
            0,
            events.RunnerExited(100.0, 0, True),
        ),
    ],
)
def test_what_the_runner_says_and_how_it_ends(
    lines: str, code: int, event: events.Event, tmp_path: Path
) -> None:
    """Lines of actions/runner 2.336 and its run-helper.sh, which ends with 0 whatever the
    listener said."""
    living = agent(tmp_path)
    (tmp_path / "runner.log").write_text(lines + "\n")
    if isinstance(event, events.RunnerExited):
        living._exited(code)
    assert living._next(0.01)[:-1] == [event]


def test_the_first_line_of_the_runner_comes_before_its_first_job(tmp_path: Path) -> None:
    """Both are read in one look, if the machine is slow; later, that line means a lost job."""
    living = agent(tmp_path)
    (tmp_path / "jobs").write_text("started\tocto/train\t7\t1\ttrain\n")
    (tmp_path / "runner.log").write_text("Listening for Jobs\nZ: Running job: train\n")
    for event in living._next(0.01):
        living._advance(event)
    assert (living.state.phase, living.job) == (Phase.BUSY, ("octo/train", 7, 1))


def test_what_the_runner_said_before_it_listened_again_means_nothing(tmp_path: Path) -> None:
    living = agent(tmp_path)
    lines = ["Runner listener exit with retryable error, re-launch runner in 5 seconds."]
    lines += ["The runner no longer exists on the server.", "Listening for Jobs"]
    (tmp_path / "runner.log").write_text("\n".join(lines) + "\n")
    living._exited(-9)
    assert living._next(0.01)[1] == events.RunnerExited(100.0, -9, removed=False)


DONE = "2026-11-27 00:00:58Z: Job train completed with result: Succeeded"
STARTED, COMPLETED = (word + "\tocto/train\t%d\t1\ttrain\n" for word in ("started", "completed"))


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_job_that_begins_at_once_is_not_taken_for_the_one_before(
    batches: int, tmp_path: Path
) -> None:
    """However few looks the agent had at what hooks and runner wrote meanwhile."""
    living = agent(tmp_path)
    living.state = dataclasses.replace(living.state, phase=Phase.IDLE)
    written = [(STARTED % 7, ""), (COMPLETED % 7, ""), (STARTED % 8, DONE + "\n")]
    for number, (hook, line) in enumerate(written, 1):
        with (tmp_path / "jobs").open("a") as jobs, (tmp_path / "runner.log").open("a") as log:
            jobs.write(hook)
            log.write(line)
        if number > len(written) - batches:
            for event in living._next(0.01):
                living._advance(event)
    assert (living.state.phase, living.state.job) == (Phase.BUSY, "train of run 8, attempt 1")


def test_the_heartbeat_comes_back_as_it_was_written(tmp_path: Path) -> None:
    beat = Beat(
        lifecycle.State(Phase.BUSY, 12.5, 3.0, job="train", worked=True),
        99.0,
        ("octo/train", 7, 1),
        40,
        1234,
    )
    write_beat(tmp_path, beat)
    assert read_beat(tmp_path) == beat


@pytest.mark.parametrize("text", ["", "{", "cnothing.here"])
def test_a_broken_heartbeat_is_none_and_the_first_look_is_remembered(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "heartbeat").write_text(text)
    assert read_beat(tmp_path) is None
    assert first_look(tmp_path, 50.0) == 50.0
    assert first_look(tmp_path, 80.0) == 50.0


@pytest.mark.parametrize(
    ("phase", "result", "comes"),
    [
        (Phase.BUSY, "signal", [True, False]),
        (Phase.IDLE, "signal", [False, False]),
        (Phase.BUSY, "success", [False, False]),
        (Phase.LEAVING, "signal", [False, False]),
    ],
)
def test_an_agent_killed_while_a_job_runs_comes_back_once(
    phase: Phase, result: str, comes: list[bool], tmp_path: Path
) -> None:
    write_beat(tmp_path, Beat(lifecycle.State(phase, 1, 1), 5))
    assert [comes_back(tmp_path, result), comes_back(tmp_path, result)] == comes


AS_THE_RUNNER = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]
"""ScriptHandlerHelpers.cs"""
JOB = {
    "PATH": "/usr/bin:/bin",
    "GITHUB_REPOSITORY": "octo/train",
    "GITHUB_RUN_ID": "7",
    "GITHUB_RUN_ATTEMPT": "1",
    "GITHUB_JOB": "train",
}


MANY = dataclasses.replace(SPEC, single=False, jit_config=None)


def hooks(home: Path, spec: AgentSpec = MANY) -> dict[str, str]:
    """As they are written before the first job."""
    added = GitHub(spec, home, {}, {}).environment(home / "hooks", home / "jobs")
    return {
        event: added["ACTIONS_RUNNER_HOOK_JOB_" + event.upper()]
        for event in ("started", "completed")
    }


def run_hook(script: str, workspace: object) -> str:
    """As actions/runner does; gives what it said in the job's log."""
    home, place = Path(script).parents[1], str(workspace)
    cwd, env = place if os.path.isdir(place) else str(home), {**JOB, "GITHUB_WORKSPACE": place}
    argv = [*AS_THE_RUNNER, script]
    return subprocess.run(
        argv, env=env, cwd=cwd, stdout=subprocess.PIPE, check=True
    ).stdout.decode()


@pytest.fixture(params=["home", "o'ne \"me"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Of a home that may be called anything."""
    folder = tmp_path / request.param / "_work/train/train"
    folder.mkdir(parents=True)
    (folder / ".hidden").write_text("left by the job")
    yield folder
    assert left_mounted(tmp_path) == []


def left_mounted(folder: Path) -> list[str]:
    """Takes off what is mounted there, and tells what that was."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    lines = [line for line in mounts if f" {folder}/" in line]
    for line in lines:
        subprocess.run(["umount", "-l", line.split(" ")[4].replace("\\040", " ")], check=True)
    return lines


@pytest.mark.parametrize(
    "spec", [MANY, dataclasses.replace(MANY, single=True)], ids=["many", "single"]
)
def test_the_hooks_we_write_are_good_shell_and_tell_whole_lines(
    spec: AgentSpec, workspace: Path
) -> None:
    home, scripts = workspace.parents[2], hooks(workspace.parents[2], spec)
    assert run_hook(scripts["started"], workspace) == ""
    assert [path.name for path in workspace.iterdir()] == [".hidden"]
    assert run_hook(scripts["completed"], workspace) == ""
    fields = "octo/train\t7\t1\ttrain\n"
    assert (home / "jobs").read_text() == f"started\t{fields}completed\t{fields}"
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    subprocess.run([shellcheck, *scripts.values()], check=True)
    away = list((home / "_work").glob("_cml-done-*"))
    if spec.single:
        assert (workspace / ".hidden").exists()
        assert away == [], "its machine, or its folder, ends with it"
    else:
        assert not workspace.exists(), "nothing stays for the next job"
        assert [path.name for folder in away for path in folder.iterdir()] == [".hidden"], (
            "it is only moved"
        )


@pytest.mark.parametrize("workspace", ["", "/", "{home}", "{home}/_work", "{home}/_work/train"])
def test_the_hook_moves_nothing_but_a_workspace(workspace: str, tmp_path: Path) -> None:
    (tmp_path / "_work" / "train" / "train").mkdir(parents=True)
    assert run_hook(hooks(tmp_path)["completed"], workspace.format(home=tmp_path)) == ""
    assert (tmp_path / "_work" / "train" / "train").exists()


@pytest.mark.parametrize(
    "job",
    ["touch new", "chmod 0 ../train", "cd .. && rm -r train && ln -s /nowhere train"],
)
def test_whatever_a_job_did_to_its_workspace(job: str, workspace: Path) -> None:
    script = hooks(workspace.parents[2])["completed"]
    subprocess.run(["sh", "-c", job], cwd=str(workspace), check=True)
    assert run_hook(script, workspace) == ""
    assert not os.path.lexists(str(workspace))


def test_a_disk_that_is_full_fails_no_job(workspace: Path) -> None:
    """A hook that fails is a job that fails."""
    script = hooks(workspace.parents[2])["completed"]
    (workspace.parents[2] / "jobs").symlink_to("/dev/full")
    env = {**JOB, "GITHUB_WORKSPACE": str(workspace)}
    subprocess.run([*AS_THE_RUNNER, script], env=env, cwd=str(workspace), check=True)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "model.bin").write_text("weights")
    try:
        subprocess.run(
            ["mount", "--bind", str(folder), str(folder)], check=True, stderr=subprocess.PIPE
        )
        subprocess.run(["umount", str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"SKIPPED LOUDLY: nothing can be mounted here: {error}")
    return folder


def mount(share: Path, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(share), str(place)], check=True)


def test_what_a_job_left_mounted_moves_along(share: Path, workspace: Path, tmp_path: Path) -> None:
    script = hooks(workspace.parents[2])["completed"]
    mount(share, workspace / "data")
    assert run_hook(script, workspace) == ""
    assert not workspace.exists()
    (away,) = workspace.parents[1].glob("_cml-done-*")
    assert (away / "data/model.bin").exists()
    assert len(left_mounted(tmp_path)) == 1


@pytest.mark.parametrize("what", ["the workspace", "what it is in"])
def test_a_mount_that_cannot_be_moved_is_left_and_said_and_nothing_is_copied(
    what: str,
    share: Path,
    workspace: Path,
    tmp_path: Path,
) -> None:
    """In the second case a rename would go from one mount to another: there `mv` copies, and
    removes."""
    script = hooks(workspace.parents[2])["completed"]
    mount(share, workspace if what == "the workspace" else workspace.parent)
    workspace.mkdir(exist_ok=True)
    (workspace / "mine").write_text("x")
    output = run_hook(script, workspace)
    assert output.startswith("::warning title=cml-runner::the workspace stays: ")
    assert ("busy" if what == "the workspace" else "cross-device") in output
    assert (workspace / "mine").exists()
    assert list(workspace.parents[1].glob("_cml-done-*")) == []
    assert len(left_mounted(tmp_path)) == 1


def test_what_was_mounted_before_the_job_stays_in_its_place(
    share: Path,
    workspace: Path,
    tmp_path: Path,
) -> None:
    """As a pod's template or a startup script does it."""
    scripts = hooks(workspace.parents[2])
    mount(share, workspace / "a b/data")
    run_hook(scripts["started"], workspace)
    assert "as something was mounted in it before" in run_hook(scripts["completed"], workspace)
    assert (workspace / "a b/data/model.bin").exists()
    assert len(left_mounted(tmp_path)) == 1


def test_a_disk_for_all_work_is_no_trouble(share: Path, workspace: Path, tmp_path: Path) -> None:
    mount(share, workspace.parents[1])
    workspace.mkdir(parents=True)
    scripts = hooks(workspace.parents[2])
    assert [run_hook(scripts[event], workspace) for event in ("started", "completed")] == ["", ""]
    assert not workspace.exists()
    assert len(left_mounted(tmp_path)) == 1


class Member(GitHub):
    """Answers given one after the other, the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.calls = list(answers), 0

    def leave(self, timeout: float = 10) -> str:
        self.calls += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_clean_up_tries_until_the_runner_is_gone_and_only_once(tmp_path: Path) -> None:
    stages: list[str] = []
    member = Member(REFUSED, GONE)
    for _ in range(2):
        clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: stages.append(stage))
    assert member.calls == 2
    assert stages == ["deregistered"]


def test_clean_up_again_for_a_registration_that_was_on_its_way(tmp_path: Path) -> None:
    member = Member(GONE)
    clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: None)
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / ".runner").write_text("{}")
    os.utime(tmp_path / "gone", (1, 1))
    clean_up(tmp_path, lambda: member.leave, lambda stage, **facts: None)
    assert member.calls == 2


def test_a_missing_job_user_is_told_and_ends_the_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    (tmp_path / "spec.json").write_text(
        dataclasses.replace(SPEC, job_user="nobody-at-all").to_json()
    )
    assert main(["run"], {}, tmp_path) == 6
    output = capfd.readouterr().out
    assert "no such user" in output
    assert "canary" not in output


def test_secrets_are_starred_out_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    from runner_action.agent.__main__ import say_on_console

    say_on_console(SPEC.secrets())("failed", why="config.sh said canary-jit and canary-api")
    assert capfd.readouterr().out.count("***") == 2


def removed_by(spec: AgentSpec, home: Path, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """The containers that the hooks of a job remove. `before`, `after`: those that run then."""
    run_hooks(spec, home, containers(home, *before), lambda: containers(home, *after))
    file = home / "removed"
    return file.read_text() if file.exists() else ""


def run_hooks(
    spec: AgentSpec,
    home: Path,
    started: dict[str, str],
    completed: Callable[[], dict[str, str]] | dict[str, str],
) -> None:
    """With these environments. `completed`: made after the first hook, where it is a function."""
    (home / "_work").mkdir()
    scripts = hooks(home, spec)
    for event, given in (("started", started), ("completed", completed)):
        environment = given() if callable(given) else given
        done = subprocess.run(
            [scripts[event]],
            env={**environment, "GITHUB_WORKSPACE": "/none"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        assert done.stdout == b""


def containers(home: Path, *running: str) -> dict[str, str]:
    """The environment of hooks on a machine where these containers run."""
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    listing = "".join(f"echo {name}\n" for name in running)
    removed = f'shift 2\necho "$@" >> {home}/removed\n'
    docker = f'#!/bin/sh\nif [ "$1" = ps ]; then\n{listing}:\nelse\n{removed}fi\n'
    (programs / "docker").write_text(docker)
    (programs / "docker").chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        ((), ("job1", "job2"), "job1 job2\n"),
        (("scripts", "service"), ("scripts", "service", "job1"), "job1\n"),
        (("scripts",), ("scripts",), ""),
        ((), (), ""),
    ],
)
def test_what_a_job_has_left_running_ends_with_it(
    before: tuple[str, ...], after: tuple[str, ...], removed: str, tmp_path: Path
) -> None:
    """And nothing that ran before its steps: a startup script's containers, and the job's own,
    which actions/runner removes."""
    assert removed_by(dataclasses.replace(MANY, cloud="aws"), tmp_path, before, after) == removed


@pytest.mark.parametrize("cloud", ["", "kubernetes"])
def test_containers_of_a_computer_that_is_not_the_launchs_own_stay(
    cloud: str, tmp_path: Path
) -> None:
    """On a person's computer, and on a node whose Docker a pod may reach, others start some too."""
    spec = dataclasses.replace(MANY, cloud=cloud)
    assert removed_by(spec, tmp_path, (), ("somebodys",)) == ""


def test_what_could_not_be_listed_before_a_job_is_not_removed_after_it(tmp_path: Path) -> None:
    """A Docker that was slow once, and is well when the job ends."""
    spec = dataclasses.replace(MANY, cloud="aws")
    environment = containers(tmp_path, "scripts")
    docker = tmp_path / "bin/docker"
    well = docker.read_text()
    first = f"[ -e {tmp_path}/asked ] || {{ : > {tmp_path}/asked; exit 124; }}\n"
    docker.write_text(well.replace("#!/bin/sh\n", "#!/bin/sh\n" + first))
    run_hooks(spec, tmp_path, environment, environment)
    assert (tmp_path / "asked").exists()
    assert not (tmp_path / "removed").exists()


def test_a_docker_that_does_not_answer_holds_up_no_job(tmp_path: Path) -> None:
    environment = containers(tmp_path)
    (tmp_path / "bin/docker").write_text("#!/bin/sh\nexec sleep 60\n")
    began = time.monotonic()
    run_hooks(dataclasses.replace(MANY, cloud="aws"), tmp_path, environment, environment)
    assert time.monotonic() - began < 25


def test_the_tool_cache_stays_between_jobs(workspace: Path) -> None:
    """actions/runner has it in `_work/_tool`, unless a variable of its environment names another
    place (`GetDirectory`):
    https://github.com/actions/runner/blob/main/src/Runner.Common/HostContext.cs"""
    home = workspace.parents[2]
    python = home / "_work/_tool/Python/3.12.8/x64.complete"
    python.parent.mkdir(parents=True)
    python.touch()
    scripts = hooks(home)
    for _ in range(2):
        workspace.mkdir(parents=True, exist_ok=True)
        run_hook(scripts["started"], workspace)
        run_hook(scripts["completed"], workspace)
    assert python.exists()
    names = ("RUNNER_TOOL_CACHE", "RUNNER_TOOLSDIRECTORY", "AGENT_TOOLSDIRECTORY")
    user = pwd.getpwuid(os.geteuid())
    assert not {*names} & child_environment(user, dict.fromkeys(names, "/tmp/tools")).keys()


def test_a_workspace_is_kept_if_the_user_wants_it(workspace: Path) -> None:
    home = workspace.parents[2]
    run_hook(hooks(home, dataclasses.replace(MANY, keep=True))["completed"], str(workspace))
    assert workspace.is_dir()
    assert list((home / "_work").glob("_cml-done-*")) == []
