"""What a launch makes of the machines that earlier attempts of its run lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import pytest

from runner_action.agent.reasons import Reason
from runner_action.ci.report import summary
from runner_action.errors import ProviderError
from runner_action.model import (
    RUN_TAG,
    CiJob,
    Instance,
    Placement,
    Pool,
    ProviderName,
    Report,
)
from runner_action.runners.ladder import after
from runner_action.runners.memory import number_of
from tests.test_launch import RUN, Story

ATTEMPT = "octo/train run 1 attempt {}"
TAKEN = f'cml-runner: {{"stage": "leaving", "why": "{Reason.TAKEN.text}: spot terminate"}}'
IDLE = f'cml-runner: {{"stage": "leaving", "why": "{Reason.IDLE.text}"}}'
FIRST = ["spot r1a", "spot r1b", "spot r2a", "r1a", "r1b", "r2a"]


def machine(
    zone: str = "r1a",
    attempt: int = 1,
    *,
    kind: str = "small",
    spot: bool = True,
    reclaimed: bool = False,
) -> Instance:
    number = f"i-{attempt}{zone}"
    return Instance(
        provider=ProviderName.AWS,
        id=number,
        name=number,
        region=zone[:2],
        zone=zone,
        instance_type=kind,
        spot=spot,
        alive=False,
        tags={RUN_TAG: ATTEMPT.format(attempt)},
        reclaimed=reclaimed,
    )


def placement(spot: bool, *pools: str) -> Placement:
    named = [pool.split() for pool in pools]
    return Placement(
        region="r",
        spot=spot,
        pools=tuple(Pool(instance_type=one, zone=zone) for one, zone in named),
    )


def words(ladder: Sequence[Placement]) -> list[str]:
    return [
        f"{'spot ' if one.spot else ''}{'+'.join(f'{p.instance_type} {p.zone}' for p in one.pools)}"
        for one in ladder
    ]


BOTH = [placement(True, "x a", "x b", "y a"), placement(False, "x a", "x b", "y a")]
APART = [placement(True, "x a"), placement(True, "x b"), placement(True, "y a")]
ORDERS: list[tuple[str, list[Placement], list[Instance], list[str]]] = [
    ("nothing was lost", BOTH, [], ["spot x a+x b+y a", "x a+x b+y a"]),
    (
        "on demand where it may be",
        BOTH,
        [machine("a", kind="x")],
        ["x b+y a", "x a", "spot x b+y a", "spot x a"],
    ),
    (
        "another type in the same zone is another pool",
        APART,
        [machine("a", kind="x")],
        ["spot x b", "spot y a", "spot x a"],
    ),
    (
        "all were lost",
        APART,
        [machine("a", kind="x"), machine("b", kind="x"), machine("a", kind="y")],
        ["spot x a", "spot x b", "spot y a"],
    ),
    ("elsewhere", APART, [machine("c", kind="x")], ["spot x a", "spot x b", "spot y a"]),
]


@pytest.mark.parametrize(
    ("ladder", "lost", "then"),
    [order[1:] for order in ORDERS],
    ids=[order[0] for order in ORDERS],
)
def test_the_order_after_an_interruption(
    ladder: list[Placement], lost: list[Instance], then: list[str]
) -> None:
    assert words(after(ladder, lost)) == then


def test_no_pool_is_ever_lost_or_new() -> None:
    """And the order of those that were not lost stays."""
    pools = [f"{kind} {zone}" for kind, zone in product("xy", "abc")]
    machines = [machine(zone, kind=kind) for kind, zone in product("xy", "abc")]
    ladders = [
        [placement(spot, *pools[:cut]) for spot, cut in product(spots, (2, 6))]
        for spots in ((True,), (True, False))
    ]
    for ladder, number in product(ladders, range(4)):
        for lost in combinations(machines, number):
            then = after(ladder, lost)
            before = sorted((one.spot, str(p)) for one in ladder for p in one.pools)
            assert sorted((one.spot, str(p)) for one in then for p in one.pools) == before
            assert all(one.pools for one in then)
            assert not lost or [one.spot for one in then] == sorted(one.spot for one in then)


class Again(Story):
    """A later attempt. `former`: the machines of the earlier ones."""

    def __init__(
        self, *former: Instance, attempt: int = 2, spots: tuple[bool, ...] = (True, False)
    ) -> None:
        super().__init__()
        job = CiJob(repository_url="https://github.com/octo/train", run_id=1, attempt=attempt)
        self.run = replace(RUN, title=ATTEMPT.format(attempt), job=job)
        self.provider.spots = spots
        self.provider.instances = {each.id: each for each in former}

    def planned(self) -> Report:
        """What it would do."""
        self.request = replace(self.request, dry_run=True)
        return self.launch()

    def tries(self) -> list[str]:
        """Where it would request machines, one after another."""
        ladder = self.planned().ladder
        return [f"{'spot ' if one.spot else ''}{one.pools[0].zone}" for one in ladder]


def test_the_first_attempt_asks_nothing() -> None:
    story = Again(machine(reclaimed=True), attempt=1)
    assert story.tries() == FIRST
    assert "former" not in story.provider.calls


def test_nor_does_a_launch_that_requests_no_spot_machine() -> None:
    story = Again(machine(reclaimed=True), spots=(False,))
    assert story.tries() == ["r1a", "r1b", "r2a"]
    assert "former" not in story.provider.calls


def test_the_cloud_says_that_it_took_the_machine() -> None:
    story = Again(machine(reclaimed=True))
    assert story.tries() == ["r1b", "r2a", "r1a", "spot r1b", "spot r2a", "spot r1a"]
    assert "console" not in story.provider.calls


@pytest.mark.parametrize("alive", [True, False])
def test_a_machine_that_ended_by_itself_says_so_on_its_console(alive: bool) -> None:
    """Or that is about to end."""
    story = Again(replace(machine("r1b"), alive=alive), spots=(True,))
    story.provider.consoles["i-1r1b"] = f"boot\n{TAKEN}\nend"
    assert story.tries() == ["spot r1a", "spot r2a", "spot r1b"]


HISTORIES: dict[str, list[Instance]] = {
    "no machine is listed": [],
    "its job failed, and it idled": [machine()],
    "it was on demand": [machine(spot=False, reclaimed=True)],
    "that was long ago": [machine("r1b", 1, reclaimed=True), machine("r1a", 2, spot=False)],
    "another run lost it": [
        replace(machine(reclaimed=True), tags={RUN_TAG: "octo/train run 11 attempt 1"})
    ],
    "it is of this very attempt": [machine("r1a", 3, reclaimed=True)],
    "nobody can tell whose it was": [
        replace(machine(reclaimed=True), tags={RUN_TAG: ATTEMPT.format("")})
    ],
}


@pytest.mark.parametrize("former", HISTORIES.values(), ids=HISTORIES)
def test_without_an_interruption_everything_is_as_usual(former: list[Instance]) -> None:
    story = Again(*former, attempt=3)
    story.provider.consoles["i-1r1a"] = IDLE
    assert story.tries() == FIRST
    assert story.planned().memory == ""


def test_a_cloud_that_refuses_is_no_failure_of_the_launch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    story = Again(machine(reclaimed=True))
    story.provider.trouble["former"] = ProviderError("no")
    assert story.tries() == FIRST
    assert "earlier attempts: no" in caplog.text


def test_an_interruption_by_interruption_all_lost_pools_come_last() -> None:
    lost = [machine("r1a", 1, reclaimed=True), machine("r1b", 2, reclaimed=True)]
    story = Again(*lost, attempt=3, spots=(True,))
    assert story.tries() == ["spot r2a", "spot r1a", "spot r1b"]


ONE, TWO = machine("r1a", reclaimed=True), machine("r1b", reclaimed=True)
THREE = machine("r2a", reclaimed=True)
SAME = "requesting the same again, as there is no other zone or type"
SENTENCES: list[tuple[tuple[Instance, ...], tuple[bool, ...], str]] = [
    (
        (ONE,),
        (True, False),
        "The machine of attempt 1 was reclaimed in r1a: requesting on demand.",
    ),
    (
        (ONE,),
        (True,),
        "The machine of attempt 1 was reclaimed in r1a: requesting another zone or type first.",
    ),
    (
        (ONE, TWO, THREE),
        (True,),
        f"Machines of attempt 1 were reclaimed in r1a, r1b, r2a: {SAME}.",
    ),
]


@pytest.mark.parametrize(("former", "spots", "sentence"), SENTENCES)
def test_the_log_and_the_summary_say_why(
    former: tuple[Instance, ...],
    spots: tuple[bool, ...],
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    story = Again(*former, spots=spots)
    report = story.launch()
    assert sentence in caplog.text
    assert sentence in summary(report, story.request)
    assert sentence in summary(Again(*former, spots=spots).planned(), story.request)


@pytest.mark.parametrize(
    ("own", "title", "attempt"),
    [
        (ATTEMPT.format(10), ATTEMPT.format(9), 9),
        (ATTEMPT.format(10), ATTEMPT.format(10), -1),
        (ATTEMPT.format(10), ATTEMPT.format(11), -1),
        (ATTEMPT.format(10), "octo/train run 2 attempt 1", -1),
        (ATTEMPT.format(10), f"{ATTEMPT.format(1)} or so", -1),
        ("by hand", "by hand", -1),
        (ATTEMPT.format(2)[:-1], ATTEMPT.format(1), -1),
    ],
)
def test_the_attempt_of_a_title(own: str, title: str, attempt: int) -> None:
    assert number_of(title, own) == attempt
