"""The same launch on every kind of GitLab: each version from 16.0 on, below a path, behind an
authority of its own, in nested groups; by its launcher, its sweep and its machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from runner_action import claim
from runner_action.agent import gitlab_token
from runner_action.agent.plan import Leaving
from runner_action.commands.reap import reap
from runner_action.commands.status import status
from runner_action.errors import AuthError
from runner_action.forges.gitlab.client import GitLab
from runner_action.marks import Mark
from runner_action.model import ProviderName, Repository, Secret
from runner_action.runners.context import Context
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.rest import status_of
from runner_action.sandbox.forges.gitlab.rules import DEVELOPER, MAINTAINER
from runner_action.sandbox.forges.jobs import Job
from tests.contracts.openapi import gitlab_judge
from tests.fakes import FakeClock, FakeProvider, agent_spec

TOKEN = "canary-admin"
VERSIONS = ("16.0.0", "16.11.10", "17.0.8", "17.1.0-ee", "18.0.0", "19.4.0")


@dataclass(frozen=True)
class Kind:
    version: str = "19.4.0"
    prefix: str = ""
    project: str = "octo/train"
    tls: bool = False
    of_group: bool = False


KINDS = {
    **{version: Kind(version) for version in VERSIONS},
    "below a path": Kind(prefix="/gitlab"),
    "nested": Kind(project="acme/research/vision/train"),
    "nested, below a path, old": Kind("16.0.0", "/apps/gitlab", "acme/research/vision/train"),
    "group": Kind(of_group=True),
    "nested group": Kind(project="acme/research/vision/train", of_group=True),
    "authority": Kind(tls=True),
    "authority, nested, below a path": Kind("18.6.1", "/gitlab", "acme/vision/train", tls=True),
}


@dataclass
class Instance:
    server: FakeGitLab
    kind: Kind
    certificates: str | None = None

    @property
    def repository(self) -> Repository:
        server = self.server
        return Repository(url=server.group_url if self.kind.of_group else server.repo_url)

    def client(self, token: str = TOKEN) -> GitLab:
        """It finds out by itself where the instance is."""
        return GitLab(self.repository, Secret(token), certificates=self.certificates)


@pytest.fixture(params=KINDS)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    kind = KINDS[request.param]
    authority = trustme.CA() if kind.tls else None
    files = secured(authority, tmp_path) if authority else None
    server = FakeGitLab({TOKEN: ["api"]}, kind.prefix, kind.version, files, project=kind.project)
    server.rules.within[TOKEN] = "/".join(kind.project.split("/")[:-1])
    yield Instance(server, kind, authority.cert_pem.bytes().decode() if authority else None)
    server.close()


def secured(authority: trustme.CA, folder: Path) -> tuple[str, str]:
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return str(certificate), str(key)


def test_a_runner_is_launched_claimed_shown_and_deregistered(instance: Instance) -> None:
    with judged(instance):
        lived(instance)
    assert instance.server.forge.seats() == []


def judged(instance: Instance) -> AbstractContextManager[object]:
    """GitLab's description of itself is the newest one's."""
    url = instance.server.server_url
    newest = instance.kind.version == Kind.version
    return gitlab_judge(url, undeclared=(401, 403, 404)) if newest else nullcontext()


def lived(instance: Instance) -> None:
    server = instance.server
    forge = instance.client()
    clock = FakeClock()
    assert forge.runners() == []
    until = clock.now() + timedelta(hours=1)
    name = "cml-0123456789"
    label = Mark(provider=ProviderName.AWS, online_by=until, name=name).label(instance.repository)
    made = forge.register_one(name, ["cml", label], "x64", longest=3600)
    (seat,) = server.forge.seats()
    assert status_of(seat) == "never_contacted"
    assert list(forge.online({name: made})) == []
    server.forge.set_online(seat, online=True)
    assert list(forge.online({name: made})) == [name]
    (runner,) = forge.runners()
    assert runner.labels == frozenset({"cml", label})
    assert (runner.online, runner.busy) == (True, False)
    mark = claim.claim("0123456789", clock.now() + timedelta(seconds=60))
    assert forge.claim(runner, mark, clock, shared=False)
    assert forge.take_turn("cml-turn-1", mark, clock)
    forge.end_turn("cml-turn-1", "0123456789")
    assert name in status(instance.repository, forge, None, clock)[1]
    server.forge.queue_job(["cml"])
    assert server.forge.next_job(seat, wait=0)
    assert forge.runners()[0].busy
    server.forge.complete(seat, "success")
    assert forge.deregister(name, made.runner_id)


def test_what_a_killed_launch_left_is_swept(instance: Instance) -> None:
    forge, clock = instance.client(), FakeClock()
    past = clock.now() - timedelta(hours=3)
    name = "cml-0123456789"
    mark = Mark(provider=ProviderName.AWS, online_by=past, name=name)
    forge.register_one(name, ["cml", mark.label(instance.repository)], "x64")
    forge.register_one("by-hand", ["cml", "other"], "x64")
    swept = reap(Context(instance.repository, forge, FakeProvider(), clock))
    assert len(swept) == 1
    assert [seat.name for seat in instance.server.forge.seats()] == ["by-hand"]


@pytest.mark.parametrize("runs", [True, False], ids=["running", "failed"])
def test_the_machine_restarts_its_job(
    runs: bool, instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own client. A job that still runs is cancelled first: before 17.0 that is the end
    of it, since then GitLab waits for the runner."""
    if instance.kind.tls or instance.kind.of_group:
        return  # the machine's authorities are the system's; a group's jobs are of its projects
    monkeypatch.setattr(gitlab_token, "LOOK", 0.02)
    server = instance.server
    made = instance.client().register_one("cml-1", ["gpu", "mark"], "x64")
    launch, train = jobs_of(server)
    (seat,) = server.forge.seats()
    if not runs:
        server.forge.complete(seat, "failure", reason="runner_system_failure")
    agent = agent_of(server, launch, made.runner_id, tmp_path)
    plan = Leaving(5.0, 0.2)
    assert agent.restart((server.tree.project, train.id, None), plan) == "launch and train"
    retried = [path for _, path, code in server.requests if path.endswith("/retry") and code == 201]
    assert len(retried) == 2


def jobs_of(server: FakeGitLab) -> tuple[Job, Job]:
    """The launch job, which has succeeded, and a job that the one runner has."""
    forge = server.forge
    run = forge.queue_run()
    launch = forge.add_job(run, "launch", ["hosted"])
    train = forge.add_job(run, "train", ["gpu"], needs=["launch"])
    forge.begin(run)
    host = forge.seat("host", ["hosted"], ephemeral=False)
    forge.set_online(host, online=True)
    assert forge.next_job(host, wait=1) is launch
    forge.complete(host, "success")
    forge.remove(host.id, force=True)
    (seat,) = forge.seats()
    forge.set_online(seat, online=True)
    assert forge.next_job(seat, wait=1) is train
    return launch, train


def test_a_developers_machine_cannot_cancel_by_force_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is no end: the job is retried once it has ended."""
    monkeypatch.setattr(gitlab_token, "LOOK", 0.02)
    server = FakeGitLab({TOKEN: ["api"], "canary-developer": ["api"]})
    server.rules.roles["canary-developer"] = DEVELOPER
    made = Instance(server, Kind()).client().register_one("cml-1", ["gpu", "mark"], "x64")
    launch, train = jobs_of(server)
    agent = agent_of(server, launch, made.runner_id, tmp_path, "canary-developer")
    (seat,) = server.forge.seats()
    ending = threading.Timer(0.6, server.forge.complete, (seat, "cancelled"))
    ending.start()
    told = agent.restart((server.tree.project, train.id, None), Leaving(5.0, 0.2))
    ending.join()
    server.close()
    assert told == "launch and train"
    cancels = [code for _, path, code in server.requests if path.endswith("/cancel")]
    assert cancels == [201, 403]


def agent_of(
    server: FakeGitLab, launch: Job, runner: int | None, folder: Path, token: str = TOKEN
) -> gitlab_token.Forge:
    """The machine's own client, after its runner has stopped."""
    spec = agent_spec(
        forge="gitlab",
        repository_url=server.repo_url,
        api_url=f"{server.server_url}/api/v4",
        api_token=token,
        runner_id=runner,
        restart_limit=5,
        launch_job=launch.id,
        launch_job_name="launch",
        launch_project=server.tree.project,
        labels=("gpu",),
    )
    agent = gitlab_token.Forge(spec, folder, {}, {})
    agent.runner_stopped()
    return agent


# --- nested groups


@pytest.fixture
def nested() -> Iterator[FakeGitLab]:
    """The token is the inner group's: of the outer one it sees names only."""
    server = FakeGitLab({TOKEN: ["api"], "canary-all": ["api"]}, project="acme/vision/train")
    server.rules.within[TOKEN] = "acme/vision"
    with gitlab_judge(server.server_url, undeclared=(403, 404)):
        yield server
    server.close()


@pytest.mark.parametrize("token", [TOKEN, "canary-all"])
def test_a_runner_of_an_outer_group_is_not_an_inner_groups(token: str, nested: FakeGitLab) -> None:
    """GitLab lists it there. It is neither deleted for its name, nor is its turn a turn here."""
    clock = FakeClock()
    outer_url = f"{nested.server_url}/acme"
    outer = GitLab(Repository(url=outer_url), Secret("canary-all"), f"{nested.server_url}/api/v4")
    inner = GitLab(Repository(url=nested.group_url), Secret(token), f"{nested.server_url}/api/v4")
    theirs = outer.register_one("cml-1", ["cml", "mark"], "x64").runner_id
    mark = claim.claim("0123456789", clock.now() + timedelta(seconds=60))
    assert outer.take_turn("cml-turn-1", mark, clock)
    assert [runner.name for runner in inner.runners()] == [f"cml-turn-1 {mark}", "cml-1"]
    mine = inner.register_one("cml-1", ["cml", "own"], "x64").runner_id
    other = claim.claim("abcdef0123", clock.now() + timedelta(seconds=60))
    assert inner.take_turn("cml-turn-1", other, clock), "nobody else waits here"
    inner.end_turn("cml-turn-1", "0123456789")
    inner.end_turn("cml-turn-1", "abcdef0123")
    assert inner.deregister("cml-1")
    assert inner.deregister("cml-1") is False
    left = [(seat.id, seat.name) for seat in nested.forge.seats()]
    assert left == [(theirs, "cml-1"), (2, f"cml-turn-1 {mark}")]
    assert mine


def test_an_inner_groups_maintainer_cannot_create_its_runners(nested: FakeGitLab) -> None:
    nested.rules.roles[TOKEN] = MAINTAINER
    inner = GitLab(Repository(url=nested.group_url), Secret(TOKEN), f"{nested.server_url}/api/v4")
    with pytest.raises(AuthError, match="less than an Owner of the group"):
        inner.register_one("cml-1", ["cml", "mark"], "x64")
