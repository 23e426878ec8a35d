"""What past launches left is told from all else: histories by hand, and a thousand generated
worlds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner_action.commands.reap import SKEW, Removal, reap, removals
from runner_action.errors import ForgeError, ProviderError, RunnerActionError, RunnerBusy
from runner_action.marks import Mark, is_named_as, tags
from runner_action.model import (
    Identity,
    Instance,
    ProviderName,
    Repository,
    Runner,
    is_client_token,
    runner_name,
)
from runner_action.runners.context import Context
from tests.fakes import FakeClock, FakeForge, FakeProvider

NOW = FakeClock().now()
HERE = Repository(url="https://github.com/octo/train")
THERE = Repository(url="https://github.com/octo/other")
START, LIFE = timedelta(minutes=10), timedelta(hours=5)


@dataclass
class Launch:
    """One launch as it may have left things: `ago` hours before now."""

    ago: timedelta
    name: str = "cml-0123456789"
    repository: Repository = HERE
    provider: ProviderName = ProviderName.AWS
    alone: bool = True
    number: int = 0

    @property
    def online_by(self) -> datetime:
        return NOW - self.ago + START

    @property
    def machine(self) -> Instance:
        expiry = NOW - self.ago + START + LIFE
        identity = Identity(name=self.name, key=str(self.number))
        told = tags(
            identity, self.repository, "octo/train run 1", self.online_by, expiry, {"team": "a"}
        )
        made = Instance(
            provider=self.provider,
            id=f"i-0000{self.number:08}",
            name=self.name,
            region="r1",
            tags=told,
            proven=True,
        )
        digest = f"{self.name}-{self.number:08x}"
        if self.provider is ProviderName.AZURE:
            return replace(made, group=digest)
        return replace(made, id=digest) if self.provider is ProviderName.KUBERNETES else made

    def runner(self, *, online: bool = False, busy: bool = False, contacted: bool = True) -> Runner:
        name = runner_name(Identity(name=self.name, key=""), self.machine.id, self.alone)
        label = Mark(provider=self.provider, online_by=self.online_by, name=self.name).label(
            self.repository
        )
        return Runner(
            id=1000 + self.number,
            name=name,
            labels=frozenset({"train", label}),
            online=online,
            busy=busy,
            contacted=contacted,
        )


def found(
    machines: Sequence[Instance], runners: Sequence[Runner], *, everywhere: bool = True
) -> list[str]:
    return [
        str(one)
        for one in removals(machines, runners, HERE, ProviderName.AWS, NOW, everywhere=everywhere)
    ]


OLD = Launch(timedelta(hours=1))
YOUNG = Launch(timedelta(minutes=5))
PAST = Launch(timedelta(hours=9))


@pytest.mark.parametrize(
    ("machines", "runners", "goes"),
    [
        (
            [PAST.machine],
            [],
            ["machine i-000000000000 (cml-0123456789): its lease ended at 2026-11-22 20:26 UTC"],
        ),
        (
            [PAST.machine],
            [PAST.runner(online=True, busy=True)],
            ["lease ended", "its machine i-000000000000 is removed"],
        ),
        ([OLD.machine], [], ["it has no runner, and its start timeout is over"]),
        (
            [OLD.machine],
            [OLD.runner(contacted=False)],
            ["its runner was never online", "its machine"],
        ),
        ([replace(OLD.machine, alive=False)], [], ["it is stopped"]),
        ([], [OLD.runner()], ["runner cml-0123456789: it is offline, and has no machine"]),
        # What stays:
        ([YOUNG.machine], [], []),
        ([], [YOUNG.runner()], []),
        ([OLD.machine], [OLD.runner(online=True)], []),
        ([OLD.machine], [OLD.runner()], []),
        ([], [OLD.runner(online=True)], []),
        ([], [OLD.runner(busy=True)], []),
        ([], [replace(OLD.runner(), labels=frozenset({"train"}))], []),
        ([], [replace(OLD.runner(), name="cml-9876543210")], []),
        ([], [Launch(OLD.ago, repository=THERE).runner()], []),
        ([], [Launch(OLD.ago, provider=ProviderName.GCP).runner()], []),
        ([Launch(PAST.ago, repository=THERE).machine], [], []),
        ([replace(PAST.machine, tags={})], [], []),
        (
            [replace(PAST.machine, tags={**PAST.machine.tags, "cml-runner": "security-group"})],
            [],
            [],
        ),
        (
            [
                replace(
                    PAST.machine,
                    tags={
                        **PAST.machine.tags,
                        "cml-runner:expiry": "soon",
                        "cml-runner:online-by": "-",
                    },
                )
            ],
            [],
            [],
        ),
    ],
)
def test_what_goes_and_what_stays(
    machines: list[Instance], runners: list[Runner], goes: list[str]
) -> None:
    told = found(machines, runners)
    assert len(told) == len(goes), told
    assert all(words in one for words, one in zip(goes, told, strict=True)), told


def test_the_machine_of_another_launch_of_the_name_does_not_take_a_runner_along() -> None:
    now = Launch(timedelta(hours=1), number=1).runner(online=True)
    assert ["machine" in one for one in found([PAST.machine], [now])] == [True]


def test_where_not_all_machines_are_known_a_runner_without_one_stays() -> None:
    assert found([], [OLD.runner()], everywhere=False) == []
    assert len(found([PAST.machine], [PAST.runner()], everywhere=False)) == 2


def test_pods_of_one_job_go_together_or_stay() -> None:
    one, other = (
        replace(Launch(OLD.ago, alone=False, number=number).machine, group="job")
        for number in (1, 2)
    )
    serving = Launch(OLD.ago, alone=False, number=2).runner(online=True, busy=True)
    assert found([one, other], [serving]) == []
    assert len(found([one, other], [])) == 2


@pytest.mark.parametrize(
    "label",
    [
        "cml-runner-aws-20261123001640-00000000",
        "cml-runner-aws-20269923001640-00000000",
        "cml-runner-aws",
        "cml-runner",
    ],
)
def test_a_label_that_only_looks_like_a_mark_is_none(label: str) -> None:
    assert (
        Mark.of(
            Runner(id=1, name="cml-1", labels=frozenset({label}), online=False, busy=False), HERE
        )
        is None
    )


# --- a thousand worlds


@dataclass
class Generated:
    """`ours`: what our launches of this repository made; the rest is somebody else's."""

    launches: list[tuple[Launch, bool, Runner | None]] = field(default_factory=list)
    machines: list[Instance] = field(default_factory=list)
    runners: list[Runner] = field(default_factory=list)
    theirs: list[Instance | Runner] = field(default_factory=list)


NAMES = (
    "cml-0123456789",
    "cml-0123456789-1",
    "cml-0123456789-00000001",
    "trainer",
    "trainer-2",
    "cml",
    "cml-runner",
)
AGES = st.sampled_from([0, 3, 9, 11, 13, 60, 300, 309, 313, 600, 10000]).map(
    lambda minutes: timedelta(minutes=minutes)
)
WHOSE = st.sampled_from(["ours", "ours", "ours", "repository", "cloud", "foreign", "no tags"])


@st.composite
def worlds(draw: st.DrawFn) -> Generated:
    world, taken = Generated(), set[str]()
    alone: dict[tuple[str, timedelta], bool] = {}
    for number in range(draw(st.integers(0, 6))):
        whose = draw(WHOSE)
        name = draw(st.sampled_from(NAMES))
        ago = draw(AGES)
        where = THERE if whose == "repository" else HERE
        cloud = ProviderName.GCP if whose == "cloud" else ProviderName.AWS
        # What has one name and one time is of one launch, of one machine or of several.
        launch = Launch(
            ago, name, where, cloud, alone.setdefault((name, ago), draw(st.booleans())), number
        )
        machine = launch.machine if draw(st.booleans()) and whose != "cloud" else None
        if machine and whose == "foreign":
            machine = replace(
                machine,
                tags={key: value for key, value in machine.tags.items() if key != "cml-runner"},
            )
        if machine and whose == "no tags":
            machine = replace(machine, tags={})
        online = draw(st.booleans())
        runner = (
            launch.runner(
                online=online, busy=draw(st.booleans()), contacted=online or draw(st.booleans())
            )
            if draw(st.booleans())
            else None
        )
        if runner and (runner.name in taken or whose in ("foreign", "no tags")):
            runner = None
        if whose == "ours":
            world.launches.append((launch, machine is not None, runner))
        else:
            world.theirs += [one for one in (machine, runner) if one]
        world.machines += [machine] if machine else []
        world.runners += [runner] if runner else []
        taken |= {runner.name} if runner else set()
    _by_hand(draw, world, taken)
    return world


def _by_hand(draw: st.DrawFn, world: Generated, taken: set[str]) -> None:
    """Runners of somebody's own: similar names, and the labels of ours, copied."""
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(NAMES)) + draw(st.sampled_from(["", "-old", "2", "-3"]))
        labels = draw(
            st.sampled_from([frozenset({"cml", "train"}), *(one.labels for one in world.runners)])
        )
        copied = any(
            name == one.name or name.startswith(f"{mark.name}-") or name == mark.name
            for one in world.runners
            if (mark := _mark(one))
        )
        if name not in taken:
            one = Runner(
                id=2000 + number,
                name=name,
                labels=frozenset({"cml", "train"}) if copied else labels,
                online=draw(st.booleans()),
                busy=False,
            )
            world.runners.append(one)
            world.theirs.append(one)
            taken.add(name)


def _mark(runner: Runner) -> Mark | None:
    return next((mark for where in (HERE, THERE) if (mark := Mark.of(runner, where))), None)


def ended(launch: Launch) -> bool:
    return NOW - launch.ago + START + LIFE < NOW - SKEW


def thousand(test: Callable[..., None], examples: int = 1000) -> Callable[..., None]:
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=quiet
    )(test)


@thousand
@given(worlds(), st.booleans())
def test_in_no_world_anything_of_theirs_is_touched(world: Generated, everywhere: bool) -> None:
    gone = removals(
        world.machines, world.runners, HERE, ProviderName.AWS, NOW, everywhere=everywhere
    )
    machines, runners = (
        {one.machine.id for one in gone if one.machine},
        {one.runner.id for one in gone if one.runner},
    )
    assert not {one.id for one in world.theirs if isinstance(one, Instance)} & machines
    assert not {one.id for one in world.theirs if isinstance(one, Runner)} & runners
    assert all(one.why for one in gone)
    for launch, has_machine, runner in world.launches:
        if ended(launch):
            # Ours past its lease is always gone.
            assert not has_machine or launch.machine.id in machines
            assert runner is None or not has_machine or runner.id in runners
            assert (
                runner is None
                or has_machine
                or runner.online
                or runner.busy
                or not everywhere
                or runner.id in runners
                or _shielded(world, runner, machines)
            )
        elif launch.online_by >= NOW - SKEW:
            # A launch on its way is never touched.
            assert launch.machine.id not in machines
            assert runner is None or runner.id not in runners
        elif runner and runner.online:
            assert runner.id not in runners
            assert launch.machine.id not in machines
        elif (
            runner
            and (runner.busy or not everywhere)
            and not has_machine
            and not _mistaken(world, launch, machines)
        ):
            assert runner.id not in runners


def _mistaken(world: Generated, launch: Launch, machines: set[str]) -> bool:
    """For that of a machine that goes: what has one name and one time is of one launch, and
    nothing tells its runners apart."""
    same = [
        other
        for other, has_machine, _ in world.launches
        if has_machine and (other.name, other.online_by) == (launch.name, launch.online_by)
    ]
    return any(other.machine.id in machines for other in same)


def _shielded(world: Generated, runner: Runner, machines: set[str]) -> bool:
    """By a machine that might be its own."""
    return any(
        runner.name in launch.machine.runner_names
        for launch, has_machine, _ in world.launches
        if has_machine
    )


def embodied(world: Generated) -> tuple[FakeForge, FakeProvider]:
    forge, provider = FakeForge(), FakeProvider()
    forge.listed = {one.name: one for one in world.runners}
    provider.instances = {one.id: one for one in world.machines}
    return forge, provider


@thousand
@given(worlds())
def test_swept_worlds_come_to_rest_with_all_that_is_theirs(world: Generated) -> None:
    forge, provider = embodied(world)
    for _ in range(3):
        forge.listed = {
            name: replace(one, busy=one.busy and one.online) for name, one in forge.listed.items()
        }
        for name in [
            one.name
            for one in world.runners
            if not any(one.name in left.runner_names for left in provider.alive)
            and one not in world.theirs
        ]:
            if name in forge.listed:  # the machine is gone, and with it the connection and the job
                forge.listed[name] = replace(forge.listed[name], online=False, busy=False)
        try:
            swept = reap(Context(HERE, forge, provider, FakeClock()))
        except RunnerActionError as error:
            assert "still running a job" in str(error)  # noqa: PT017
            continue
        if not swept:
            break
    assert reap(Context(HERE, forge, provider, FakeClock())) == []
    left = {one.id for one in provider.alive} | {one.id for one in forge.listed.values()}
    assert {one.id for one in world.theirs} <= left
    assert not {launch.machine.id for launch, _, _ in world.launches if ended(launch)} & {
        one.id for one in provider.alive
    }


# --- doing it


def _leftovers() -> tuple[FakeForge, FakeProvider]:
    return embodied(Generated(machines=[PAST.machine], runners=[PAST.runner()]))


def test_a_dry_run_only_tells() -> None:
    forge, provider = _leftovers()
    told = reap(Context(HERE, forge, provider, FakeClock()), dry_run=True)
    assert [type(one) for one in told] == [Removal, Removal]
    assert (len(provider.alive), len(forge.listed)) == (1, 1)
    assert {"destroy", "deregister"}.isdisjoint(provider.calls + forge.calls)


def test_the_machine_goes_before_its_runner_and_machines_are_listed_first() -> None:
    forge, provider = _leftovers()
    order: list[str] = []
    forge.calls = provider.calls = order
    reap(Context(HERE, forge, provider, FakeClock()))
    assert order == ["regions", "find", "runners", "destroy", "deregister", "tidy"]
    assert (provider.alive, forge.listed) == ([], {})


def test_what_cannot_be_removed_is_told_after_all_else_was() -> None:
    forge, provider = _leftovers()
    provider.trouble["destroy"] = ProviderError("The cloud says no.")
    with pytest.raises(RunnerActionError, match=r"machine i-0.*: The cloud says no"):
        reap(Context(HERE, forge, provider, FakeClock()))
    assert forge.listed == {}


def test_a_forge_that_does_not_answer_ends_nothing() -> None:
    """A list that is not there is not an empty one."""
    forge, provider = embodied(Generated(machines=[OLD.machine]))
    forge.trouble["runners"] = ForgeError("No.")
    with pytest.raises(ForgeError):
        reap(Context(HERE, forge, provider, FakeClock()))
    assert len(provider.alive) == 1


def test_a_busy_runner_waits_for_the_next_sweep() -> None:
    forge, provider = embodied(
        Generated(machines=[PAST.machine], runners=[PAST.runner(online=True, busy=True)])
    )
    with pytest.raises(RunnerActionError, match="still running a job"):
        reap(Context(HERE, forge, provider, FakeClock()))
    assert provider.alive == []
    assert issubclass(RunnerBusy, RunnerActionError)


def test_times_are_utc() -> None:
    assert YOUNG.machine.online_by == YOUNG.online_by.astimezone(UTC)


@pytest.mark.parametrize(
    ("real", "is_its"),
    [
        ("cml-0123456789-0a1b2c3d", True),
        ("cml-0123456789-0a1b2c3d-4-x7k2p", True),
        ("cml-0123456789", False),
        ("x-cml-0123456789-0a1b2c3d", False),
        ("prod-database", False),
        ("database-0", False),
    ],
)
def test_a_name_with_a_launch_s_digest_is_known(real: str, is_its: bool) -> None:
    assert is_named_as("cml-0123456789", real) is is_its


@pytest.mark.parametrize("provider", ProviderName)
def test_who_may_tag_does_not_make_a_machine_ours(provider: ProviderName) -> None:
    made = Launch(PAST.ago, provider=provider).machine
    assert [one.machine for one in removals([made], [], HERE, provider, NOW)] == [made]
    assert removals([replace(made, proven=False)], [], HERE, provider, NOW) == []


def test_a_client_token_shows_that_it_is_ours() -> None:
    identity = Identity(name="cml-1", key="key")
    tokens = {identity.client_token(), identity.client_token("fleet", "1")}
    assert len(tokens) == 2
    assert all(map(is_client_token, tokens))
    assert not any(map(is_client_token, ("", "terraform", identity.token(), "0" * 64)))
    # EC2's limit: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
    assert {len(token) for token in tokens} == {64}
