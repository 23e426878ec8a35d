"""This machine as the runner: `cml-runner launch` without `--cloud`, or in a job with
`--cloud=local`, as a process, against the fake forge."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner_action.commands.local import platform_of, unmount
from runner_action.errors import InputError
from runner_action.sandbox.forges.jobs import Job
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.world import TOKEN, World
from tests.agent.test_removal import DEAD
from tests.sandbox.conftest import LEAST, Launch, Launcher, until

pytestmark = pytest.mark.sandbox
Start = Callable[..., "Local"]


class Local:
    def __init__(self, world: World, home: Path, *argv: str, **environ: str) -> None:
        self.out = home / f"out-{len(list(home.iterdir()))}"
        kept = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "RUNNER_ALLOW_RUNASROOT": "1",
        }
        forge = {
            name: value for name, value in world.environ().items() if not name.startswith("AWS_")
        }
        argv = ("launch", "--labels=local,gpu", *argv)
        with self.out.open("wb") as out:
            command = [sys.executable, "-m", "runner_action", *argv]
            self.process = subprocess.Popen(
                command,
                env={**kept, **forge, **environ},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
            )

    @property
    def told(self) -> str:
        return self.out.read_text("utf-8")

    def online(self) -> None:
        until(
            lambda: "Online, waiting" in self.told or self.process.poll() is not None,
            "the runner to come online",
        )
        assert self.process.poll() is None, self.told


@pytest.fixture(params=["github", "gitlab"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param, boots=False) as made:
        yield made


PROGRAMS = {
    "github": "actions-runner-linux-x64-2.336.0.tar.gz",
    "gitlab": "gitlab-runner-linux-amd64",
}


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Start]:
    started: list[Local] = []

    def run(*argv: str, **environ: str) -> Local:
        started.append(Local(world, tmp_path, *argv, **environ))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()


def test_jobs_run_and_ctrl_c_leaves_cleanly(world: World, start: Start, tmp_path: Path) -> None:
    local = start("--idle-timeout=never")
    local.online()
    forge = world.forge
    assert (tmp_path / ".cache/cml-runner").is_dir()
    jobs = [forge.queue_job(["local", "gpu"], 0.3, f"env >> {tmp_path}/seen") for _ in range(2)]
    forge.wait(lambda: all(job.status == "completed" for job in jobs), "the jobs")
    assert {job.conclusion for job in jobs} == {"success"}
    holders = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holders == [], "the token is in the process only"
    below = list(descendants(local.process.pid))
    assert below
    local.process.send_signal(signal.SIGINT)
    assert local.process.wait(20) == 0, local.told
    assert forge.seats() == []
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "its processes to end")
    assert [path.name for path in (tmp_path / ".cache/cml-runner").iterdir()] == [
        PROGRAMS[world.kind]
    ]
    assert "asked to stop" in local.told


def test_a_job_of_a_run_makes_its_machine_the_runner_of_another(
    world: World, launch: Launch, tmp_path: Path
) -> None:
    run, launched = world.forge.queue_run(), list[Launcher]()

    def launching(job: Job) -> str:
        environ = world.job_environ(run.id, job.id, job.name, job.attempt, job.runner_name)
        own = {**LEAST, "HOME": str(tmp_path), "RUNNER_ALLOW_RUNASROOT": "1"}
        launched.append(launch("--cloud=local", "--single", "--labels=gpu", **{**environ, **own}))
        return "failure" if launched[0].wait() else "success"

    world.forge.add_job(run, "launch", ["ubuntu-latest"], hosted=launching)
    train = world.forge.add_job(run, "train", ["gpu"], 0.2, f"pwd > {tmp_path}/seen")
    world.forge.begin(run)
    world.forge.wait(lambda: all(job.status == "completed" for job in run.all_jobs), "jobs", 60)
    assert {job.conclusion for job in run.all_jobs} == {"success"}, launched[0].told
    assert train.runner_name in launched[0].outputs.values()
    assert (tmp_path / "seen").read_text().startswith(f"{tmp_path}/.cache/cml-runner/")
    assert world.left() == []


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "share"
    made.mkdir()
    (made / "model.bin").write_text("weights")
    if subprocess.run(["mount", "--bind", made, made], capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED LOUDLY: nothing can be mounted here")
    subprocess.run(["umount", made], check=True)
    yield made
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if str(tmp_path) in line:
            subprocess.run(["umount", "-l", line.split(" ")[4]], check=True)


@pytest.mark.parametrize("argv", [[], ["--single"]], ids=["many", "single"])
def test_what_jobs_left_mounted_is_not_emptied_at_the_end(
    argv: list[str],
    share: Path,
    world: World,
    start: Start,
    tmp_path: Path,
) -> None:
    local = start("--idle-timeout=4", "--first-job-timeout=30", *argv)
    local.online()
    command = (
        f"mkdir data && mount --bind {share} data && mkdir closed && touch closed/x && chmod 0555"
        " closed"
    )
    job = world.forge.queue_job(["local"], 0.2, command)
    assert local.process.wait(60) == 0, local.told
    assert job.conclusion == "success"
    assert (share / "model.bin").exists()
    assert [path.name for path in (tmp_path / ".cache/cml-runner").iterdir()] == [
        PROGRAMS[world.kind]
    ]
    assert "Could not remove" not in local.told


def test_what_a_killed_run_left_mounted_is_not_emptied_at_the_next(
    share: Path,
    world: World,
    start: Start,
    tmp_path: Path,
) -> None:
    place = tmp_path / ".cache/cml-runner/desk/runner/_work/train/train/data"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(share), str(place)], check=True)
    local = start("--idle-timeout=4", "--name=desk")
    assert local.process.wait(60) == 0, local.told
    assert (share / "model.bin").exists()
    assert not place.exists()


def test_what_cannot_be_removed_is_said_and_in_the_way_of_the_next(
    world: World, start: Start, tmp_path: Path
) -> None:
    place = tmp_path / ".cache/cml-runner/desk/runner/kept"
    place.parent.mkdir(parents=True)
    place.touch()
    argv = ["chattr", "+i", str(place)]
    if (
        not shutil.which("chattr")
        or subprocess.run(argv, capture_output=True, check=False).returncode
    ):
        pytest.skip("SKIPPED LOUDLY: no file can be made immutable here")
    try:
        local = start("--idle-timeout=4", "--name=desk")
        assert local.process.wait(30) == 6, local.told
        assert "An earlier run left " in local.told
        assert "kept: Operation not permitted" in local.told
        assert world.forge.ever == []
    finally:
        subprocess.run(["chattr", "-R", "-i", tmp_path / ".cache"], check=True)


def test_what_was_mounted_in_user_space_needs_no_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool is a stand-in, the mount is real; its program has ended, as the runner ends what
    its jobs leave running."""
    place, tool = tmp_path / "home/a b\\c", tmp_path / "bin/fusermount3"
    place.mkdir(parents=True)
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nprintf "%s %s %s" "$@" >> {tmp_path}/asked\nexec umount -l "$3"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    if subprocess.run(
        [sys.executable, "-c", DEAD], cwd=place, capture_output=True, check=False
    ).returncode:
        pytest.skip("SKIPPED LOUDLY: there is no FUSE here")
    unmount(tmp_path / "home")
    assert list(place.iterdir()) == []
    assert (tmp_path / "asked").read_text() == f"-u -z {place}"


def test_what_was_downloaded_is_kept_and_verified(
    world: World, start: Start, tmp_path: Path
) -> None:
    first = start("--idle-timeout=4")
    assert first.process.wait(30) == 0, first.told
    second = start("--idle-timeout=4")
    assert second.process.wait(30) == 0, second.told
    assert "from the cache" in second.told
    (tmp_path / ".cache/cml-runner" / PROGRAMS[world.kind]).write_bytes(b"somebody else's")
    third = start("--idle-timeout=4")
    assert third.process.wait(30) == 0, third.told
    assert "from the cache" not in third.told


def test_a_wrong_checksum_is_an_error_and_nothing_is_kept(
    world: World, start: Start, tmp_path: Path
) -> None:
    object.__setattr__(world.github._archive, "sha256", "0" * 64)
    world.gitlab.sha256 = "0" * 64
    local = start()
    assert local.process.wait(30) == 6
    assert "expected 0000000000" in local.told
    assert list((tmp_path / ".cache/cml-runner").iterdir()) == []
    assert world.forge.ever == []


def test_ctrl_c_while_busy_ends_the_job_and_restarts_nothing(world: World, start: Start) -> None:
    local = start("--idle-timeout=never")
    local.online()
    job = world.forge.queue_job(["gpu"], 60)
    until(lambda: " started" in local.told, "the job")
    local.process.send_signal(signal.SIGINT)
    assert local.process.wait(30) == 0, local.told
    assert job.conclusion == "failure"
    assert world.forge.seats() == []
    assert not [path for _, path, _ in world.server.requests if "rerun" in path or "retry" in path]


def test_ctrl_c_twice_is_now(world: World, start: Start) -> None:
    world.server.fail("DELETE", "/runners", 503, times=10**6)
    local = start("--idle-timeout=never")
    local.online()
    for _ in range(2):
        local.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    began = time.monotonic()
    assert local.process.wait(30) == 0, local.told
    assert time.monotonic() - began < 12


def test_one_job_then_gone(world: World, start: Start) -> None:
    local = start("--single")
    local.online()
    job = world.forge.queue_job(["local"])
    assert local.process.wait(30) == 0, local.told
    assert job.conclusion == "success"
    assert world.forge.seats() == []


def test_the_runner_never_survives_the_agent(world: World, start: Start) -> None:
    local = start("--idle-timeout=never")
    local.online()
    world.forge.queue_job(["local"], 60, "trap '' INT TERM")
    until(lambda: " started" in local.told, "the job")
    below = list(descendants(local.process.pid))
    assert any(
        b"Runner.Worker" in line or b"gitlab-runner" in line
        for line in (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below)
    )
    local.process.kill()
    until(
        lambda: (
            not any(
                Path(f"/proc/{pid}").exists() and ") Z" not in Path(f"/proc/{pid}/stat").read_text()
                for pid in below
            )
        ),
        "its processes",
        25,
    )


def test_a_name_in_use_is_refused_and_one_that_fits_is_reused(world: World, start: Start) -> None:
    first = start("--idle-timeout=never", "--name=desk")
    first.online()
    taken = start("--name=desk")
    assert taken.process.wait(20) == 2
    assert "is in use by an online runner" in taken.told
    reused = start("--reuse", "--name=desk")
    assert reused.process.wait(20) == 0
    assert "Runner desk is online and matches." in reused.told


def test_dry_run_does_nothing(world: World, start: Start) -> None:
    local = start("--dry-run")
    assert local.process.wait(20) == 0, local.told
    assert "would become runner" in local.told
    assert world.forge.ever == []


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become somebody else"
)
def test_root_is_refused_and_nobody_is_enough(world: World, start: Start, tmp_path: Path) -> None:
    refused = start("--idle-timeout=4", RUNNER_ALLOW_RUNASROOT="")
    assert refused.process.wait(20) == 2, refused.told
    assert "start this as an ordinary user" in refused.told
    nobodys = Path("/tmp") / f"cml-runner-nobody-{os.getpid()}"
    environ = {"PATH": os.environ["PATH"], "HOME": str(nobodys), **world.environ()}
    nobodys.mkdir()
    shutil.chown(nobodys, "nobody")
    try:
        who = [
            "setpriv",
            "--reuid=nobody",
            "--clear-groups",
            "--bounding-set=-all",
            sys.executable,
            "-m",
            "runner_action",
            "launch",
            "--idle-timeout=4",
        ]
        ask = (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import runner_action'],"
            " check=True)"
        )
        probe = subprocess.run(
            [*who[:5], "-c", ask], env=environ, cwd="/", capture_output=True, text=True, check=False
        )
        if probe.returncode:
            pytest.skip("SKIPPED LOUDLY: this checkout is closed to other users")
        done = subprocess.run(
            who, env=environ, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no job came" in done.stderr
    finally:
        shutil.rmtree(nobodys)


@pytest.mark.parametrize(
    ("system", "machine", "ours"),
    [
        ("Linux", "x86_64", ("linux", "x64")),
        ("Linux", "aarch64", ("linux", "arm64")),
        ("Darwin", "arm64", ("macos", "arm64")),
    ],
)
def test_platforms(system: str, machine: str, ours: tuple[str, str]) -> None:
    assert platform_of(system, machine) == ours


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "riscv64")])
def test_other_platforms_are_refused(system: str, machine: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{system} on {machine} cannot be a runner")):
        platform_of(system, machine)


@pytest.mark.parametrize("world", ["github"], indirect=True)
def test_an_app_registers_this_machine(world: World, start: Start, tmp_path: Path) -> None:
    key = world.github.github_app.key
    local = start(
        "--idle-timeout=never",
        REPO_TOKEN="",
        **{"INPUT_APP-ID": "4711", "INPUT_APP-PRIVATE-KEY": key},
    )
    local.online()
    job = world.forge.queue_job(["local"], 0.2, f"env > {tmp_path}/seen")
    world.forge.wait(lambda: job.status == "completed", "the job")
    assert job.conclusion == "success"
    local.process.send_signal(signal.SIGINT)
    assert local.process.wait(30) == 0, local.told
    assert world.left() == []
    found = subprocess.run(
        ["grep", "-rlF", key.splitlines()[1], tmp_path], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
