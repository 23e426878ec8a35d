"""A job as an attacker in a pod: whole lives in the embedded cluster, where each container has
its own user, processes and mounts. It tries what it finds (`pod_attacker.py`), and gains
nothing: no token, no code of its own beside one, no call about what is not its own, no pod that
lives on."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import request as asked

from runner_action.providers.kubernetes.requests import GUARD_USER, USER
from runner_action.sandbox.kubernetes.admission import SecurityContextConstraints
from runner_action.sandbox.kubernetes.pod import WALLS
from runner_action.sandbox.world import TOKEN, World, pod_command
from tests.hostile import pod_attacker
from tests.sandbox.conftest import Launcher, busy, training, until

pytestmark = pytest.mark.sandbox
SYSTEM = "/usr/bin/python3"
"""That other users can run, too."""
SECRETS = [TOKEN, "canary-(registration|removal|remove)-[0-9a-f]{16}"]
KINDS = ["script", "lies", "pickle", "link", "folder"]
VICTIM = "somebody-elses"


def walls() -> bool:
    """Only root can build them."""
    return (
        os.geteuid() == 0
        and Path(SYSTEM).exists()
        and subprocess.run([*WALLS, "true"], capture_output=True, check=False).returncode == 0
    )


needs_walls = pytest.mark.skipif(
    not walls(),
    reason="SKIPPED LOUDLY: only root can give containers users and mounts of their own",
)


def sample(all_of_it: list[str], most: int = 2) -> list[Any]:
    """The first few; the others are long, and wait for `make e2e` (`-m e2e`)."""
    return [
        *all_of_it[:most],
        *(pytest.param(one, marks=pytest.mark.e2e) for one in all_of_it[most:]),
    ]


@pytest.fixture(autouse=True)
def _whole_or_sample(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("e2e") and "e2e" not in request.config.option.markexpr:
        pytest.skip("long: with -m e2e")


class Story:
    """A world with a runner of somebody else's, a launched pod, and all calls that were made
    with the user's token."""

    def __init__(self, world: World, *argv: str) -> None:
        self.world, self.argv = world, argv
        self.calls: list[tuple[str, str]] = []
        world.machines.machine = partial(pod_command, SYSTEM, 0.02, walls=True)
        world.folder.chmod(0o1777)
        self.loot = world.folder / "loot"
        self.loot.mkdir()
        self.loot.chmod(0o777)
        (self.loot / "secrets").write_text("\n".join(SECRETS) + "\n")
        self.attacker = world.folder / "attacker.py"
        self.attacker.write_text(Path(pod_attacker.__file__).read_text())
        self.victim = world.forge.seat(VICTIM, ["theirs"], ephemeral=False)
        world.server.app.before_request(self._note)

    def _note(self) -> None:
        if TOKEN in f"{asked.headers.get('Authorization')} {asked.headers.get('PRIVATE-TOKEN')}":
            self.calls.append((asked.method, asked.path))

    def launch(self, *argv: str, **environ: str) -> Launcher:
        base = {"PATH": os.environ["PATH"], **self.world.job_environ()}
        return Launcher(self.world, self.world.folder, *self.argv, *argv, **{**base, **environ})

    @property
    def machine(self) -> str:
        return next(iter(self.world.machines.living))

    @property
    def place(self) -> Path:
        return self.world.machines.folder / self.machine

    def attack(self, *words: str) -> list[str]:
        """As a command of a container."""
        return [SYSTEM, str(self.attacker), str(self.loot), str(self.place), *words]

    def online(self) -> None:
        launcher = self.launch("--labels=train", "--idle-timeout=1", "--first-job-timeout=12")
        assert launcher.wait() == 0, launcher.told

    def ends(self, seconds: float = 90) -> None:
        until(lambda: not self.world.machines.running(), "the pod to end", seconds)
        until(
            lambda: [seat.name for seat in self.world.forge.seats()] == [VICTIM],
            "its runner, and no other, to be off the list",
            30,
        )

    def attempts(self) -> str:
        return "".join(file.read_text() for file in self.loot.glob("attempts*"))

    def judged(self, at_least: int) -> None:
        """What was gained, and what was done in the user's name after the launch."""
        gains = {file.name: file.read_bytes()[:300] for file in self.loot.glob("gained-*")}
        done = [line.split() for line in self.attempts().splitlines()]
        attempts = sum(int(number) for _, number in done)
        print(f"{attempts} attempts, {len(gains)} gains")
        assert gains == {}
        assert attempts >= at_least, done
        theirs = f"/runners/{self.victim.id}"
        assert not [call for call in self.calls if call[0] != "GET" and theirs in call[1]]


@pytest.fixture(params=["github", "gitlab"])
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    with World(request.param, "kubernetes", python=SYSTEM, timer_factor=0.02) as world:
        yield Story(world)


@needs_walls
def test_a_job_that_looks_everywhere_sees_no_token(story: Story) -> None:
    """Neither does who may `pods/exec`, in any container of the pod. What hands over cannot be
    entered any more."""
    story.online()
    log = story.loot / "jobs-own"
    seen = story.loot / "seen"
    job = story.world.forge.queue_job(
        ["train"],
        0.1,
        f"id -u > {log}; {' '.join(story.attack('look', 'plant'))};"
        f" until [ -e {seen} ]; do sleep 0.2; done",
    )
    until(lambda: "plant" in story.attempts(), "the job's attempts", 60)
    assert story.world.kubernetes
    (pod,) = story.world.kubernetes.shelf.of("pods")
    name = pod["metadata"]["name"]
    for container, user in (("guard", GUARD_USER), ("runner", USER)):
        assert story.world.kubernetes.execute(
            name, container, ["id", "-u"]
        ).stdout.decode().strip() == str(user)
        done = story.world.kubernetes.execute(name, container, story.attack("look", "plant"))
        assert done.returncode == 0, done.stderr.decode()
    seen.touch()
    with pytest.raises(LookupError, match="container not found"):
        story.world.kubernetes.execute(name, "hand-over", ["true"])
    until(lambda: job.status == "completed", "the job", 30)
    assert log.read_text().strip() == str(USER)
    story.ends()
    story.judged(at_least=10_000)


@needs_walls
def test_where_the_cluster_assigns_one_user_a_job_sees_no_token_either(story: Story) -> None:
    """OpenShift: guard and jobs are the same user, in containers of their own."""
    assert story.world.kubernetes
    story.world.kubernetes.admission.append(SecurityContextConstraints())
    story.online()
    log = story.loot / "jobs-own"
    job = story.world.forge.queue_job(
        ["train"], 0.1, f"id -u > {log}; {' '.join(story.attack('look', 'plant'))}"
    )
    until(lambda: job.status == "completed", "the job", 120)
    assert log.read_text().strip() == "1000680000"
    story.ends()
    story.judged(at_least=1_000)


@needs_walls
def test_what_a_job_plants_is_never_loaded_by_what_restarts_it(story: Story) -> None:
    """The calls that a drain leads to, for which Python loads more than before."""
    run = training(
        story.world,
        story.launch,
        "--idle-timeout=2",
        "--first-job-timeout=60",
        command="true",
        lasting=True,
    )
    busy(story.world, run)
    assert story.world.kubernetes
    (pod,) = story.world.kubernetes.shelf.of("pods")
    done = story.world.kubernetes.execute(pod["metadata"]["name"], "runner", story.attack("plant"))
    assert done.returncode == 0, done.stderr.decode()
    first = story.machine
    story.world.interrupt(first, 60)
    until(lambda: '"stage": "restart"' in story.world.machines.console(first), "the restart", 60)
    assert "not restarted" not in story.world.machines.console(first)
    story.ends()
    story.judged(at_least=1_000)


@needs_walls
@pytest.mark.parametrize("kind", sample([*KINDS, "fifo"]))
def test_what_a_job_replaces_is_no_order(story: Story, kind: str) -> None:
    """Every file, folder and link that it may: hooks, the runner's own, what the agent writes
    and reads. However the agent takes that, its guard sees it."""
    story.online()
    story.world.forge.queue_job(
        ["train"], 0.1, f"{' '.join(story.attack(f'replace-{kind}'))}; sleep 1; exit 1"
    )
    until(story.attempts, "the attempts", 60)
    # What is replaced may keep the agent waiting until its liveness probe has failed.
    story.ends(240)
    story.judged(at_least=10)


@needs_walls
@pytest.mark.parametrize("signal", sample(["KILL", "TERM", "INT", "HUP", "QUIT"]))
def test_whatever_a_job_sends_signals_to_the_pod_ends_and_its_runner_leaves(
    story: Story, signal: str
) -> None:
    """GitHub keeps a runner on its list that vanished with its job, until it notices; the guard
    has asked, and says so."""
    story.online()
    story.world.forge.queue_job(
        ["train"],
        0.1,
        f"echo kill-{signal} 1 >> {story.loot}/attempts; kill -{signal} -1; sleep 30",
    )
    until(story.attempts, "the attempt", 60)
    until(lambda: not story.world.machines.running(), "the pod to end", 90)
    said = story.world.machines.console(story.machine) + (story.place / "guard.log").read_text()
    assert '"stage": "deregistered"' in said or (
        '"stage": "still-registered"' in said and '"why": "busy"' in said
    )
    assert VICTIM in [seat.name for seat in story.world.forge.seats()]
    story.judged(at_least=1)


CLAIMS = [
    f"started\tvictim/prod\t999\t1\tx\nstarted\tocto/{name}\t1\t1\tx\n"
    for name in ("train/../../x", "train?", "other")
]


@needs_walls
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_run_that_a_job_makes_up_is_not_restarted(claim: str, story: Story) -> None:
    story.online()
    lines = claim.replace("\t", "\\t").replace("\n", "\\n")
    story.world.forge.queue_job(
        ["train"],
        0.1,
        f"printf '{lines}' >> {story.place}/volumes/home/jobs; echo claim 1 >>"
        f" {story.loot}/attempts; sleep 2; kill -KILL -1",
    )
    until(story.attempts, "the attempt", 60)
    before = len(story.calls)
    # GitHub keeps a runner on its list that vanished with its job, until it notices.
    until(lambda: not story.world.machines.running(), "the pod to end", 90)
    story.judged(at_least=1)
    assert not [call for call in story.calls[before:] if "/runs/" in call[1] and call[0] == "POST"]


# --- the attacker itself


def bait(folder: Path) -> dict[str, Any]:
    """What is not to be in a pod: a readable token, and a guard that tells anybody."""
    (folder / "loot").mkdir()
    (folder / "loot/secrets").write_text("\n".join(SECRETS) + "\n")
    (folder / "root/deep").mkdir(parents=True)
    (folder / "root/deep/spec.json").write_text(f'{{"api_token": "{TOKEN}"}}')
    return {"PATH": os.environ["PATH"]}


def test_the_attacker_finds_what_is_there(tmp_path: Path) -> None:
    """A file, an environment, the memory of a process, what it has open, and a process that can
    be traced."""
    env = bait(tmp_path)
    (tmp_path / "agent.pyz").write_text(
        f"import sys\nheld = '{TOKEN}'.upper().lower()\nprint('ready',"
        " flush=True)\nsys.stdin.read()\n"
    )
    open_one = (tmp_path / "root/deep/spec.json").open()
    agent = subprocess.Popen(
        [sys.executable, str(tmp_path / "agent.pyz")],
        env={**env, "CANARY": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=open_one,
    )
    assert agent.stdout
    assert agent.stdout.readline() == b"ready\n"
    attack = pod_attacker.Attack(tmp_path / "loot", tmp_path / "root")
    attack.processes = lambda: [agent.pid]  # type: ignore[method-assign]
    attack.look()
    agent.communicate()
    open_one.close()
    found = " ".join(sorted(file.name for file in (tmp_path / "loot").glob("gained-*")))
    for kind in ("read-", "proc-environ-", "memory-of-", "fd-2-of-", "gained-trace-"):
        assert kind in found, found


def test_what_it_plants_tells_of_an_agent_that_takes_it(tmp_path: Path) -> None:
    env = bait(tmp_path)
    attack = pod_attacker.Attack(tmp_path / "loot", tmp_path / "root")
    attack.plant()
    (tmp_path / "root/agent.pyz").write_text(
        "import time\ntry:\n    time.strptime('2026', '%Y')\nexcept ImportError:\n    pass\n"
    )
    subprocess.run(
        [sys.executable, str(tmp_path / "root/agent.pyz")],
        env=env,
        check=False,
        cwd=str(tmp_path / "root"),
    )
    assert list((tmp_path / "loot").glob("gained-import-*"))


@pytest.mark.parametrize(
    ("kind", "careless"),
    [
        ("script", "sh -c './deep/spec.json; true' agent.pyz guard"),
        (
            "pickle",
            f'{sys.executable} -c \'import pickle; pickle.load(open("deep/spec.json", "rb"))\'',
        ),
    ],
)
def test_what_it_puts_in_place_tells_of_who_runs_it(
    tmp_path: Path, kind: str, careless: str
) -> None:
    env = bait(tmp_path)
    attack = pod_attacker.Attack(tmp_path / "loot", tmp_path / "root")
    attack.replace(kind)
    subprocess.run(["sh", "-c", careless], env=env, cwd=str(tmp_path / "root"), check=True)
    assert list((tmp_path / "loot").glob("gained-*"))


if not walls():
    warnings.warn(
        "SKIPPED LOUDLY: only root can give containers users and mounts of their own", stacklevel=1
    )
