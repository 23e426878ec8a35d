"""Runners and machines side by side: what is shown of each, and the notes on what is unexpected."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runner_action.commands.status import Row, rows, span, status, table
from runner_action.errors import CredentialsError
from runner_action.model import Instance, ProviderName, Runner
from runner_action.providers.aws.price import cost
from tests.fakes import FakeClock, FakeForge, FakeProvider
from tests.test_reap import HERE, NOW, OLD, PAST, YOUNG, Launch, embodied
from tests.test_reap import Generated as World

BORN = (NOW - timedelta(hours=1)).isoformat()


def row(
    machines: list[Instance],
    runners: list[Runner],
    *,
    provider: ProviderName | None = ProviderName.AWS,
    everywhere: bool = True,
) -> Row:
    (only,) = rows(machines, runners, HERE, provider, NOW, {}, everywhere=everywhere)
    return only


@pytest.mark.parametrize(
    ("machines", "runners", "state", "notes"),
    [
        ([YOUNG.machine], [], "starting", ""),
        ([YOUNG.machine], [YOUNG.runner(contacted=False)], "starting", ""),
        ([], [YOUNG.runner(contacted=False)], "starting", ""),
        ([OLD.machine], [OLD.runner(online=True)], "online", ""),
        ([OLD.machine], [OLD.runner(online=True, busy=True)], "busy", ""),
        ([OLD.machine], [OLD.runner()], "offline", "its runner is offline"),
        ([OLD.machine], [], "none", "it has no runner, and its start timeout is over"),
        ([], [OLD.runner()], "offline", "it is offline, and has no machine"),
        ([], [OLD.runner(online=True)], "online", "its machine was not found"),
        (
            [PAST.machine],
            [PAST.runner(online=True)],
            "online",
            "its lease ended at 2026-11-22 20:26 UTC",
        ),
        (
            [],
            [Launch(OLD.ago, provider=ProviderName.GCP).runner(online=True)],
            "online",
            "its machine is at gcp",
        ),
    ],
)
def test_notes_say_what_is_unexpected(
    machines: list[Instance], runners: list[Runner], state: str, notes: str
) -> None:
    shown = row(machines, runners)
    assert (shown.state, shown.notes) == (state, notes)


def test_without_a_cloud_or_all_its_regions_a_runner_alone_is_not_called_so() -> None:
    for provider, everywhere in ((None, True), (ProviderName.AWS, False)):
        assert (
            row([], [OLD.runner(online=True)], provider=provider, everywhere=everywhere).notes
            == "its machine is at aws"
        )


def test_a_table_has_age_lease_and_cost() -> None:
    spot = replace(
        OLD.machine, launched=BORN, spot=True, instance_type="g5.xlarge", zone="us-east-1a"
    )
    (shown,) = rows(
        [spot], [OLD.runner(online=True)], HERE, ProviderName.AWS, NOW, {spot.id: 1.234}
    )
    assert (
        table([shown]).splitlines()[2]
        == "| `cml-0123456789` | online | i-000000000000 | g5.xlarge (spot) | us-east-1a | 1 h | 4"
        " h 10 min left | $1.23 |  |"
    )
    assert "| unknown |" in table([replace(shown, cost=None)])
    assert "over for 3 h 50 min" in table([row([PAST.machine], [])])


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "0 min"), (59, "59 min"), (60, "1 h"), (1501, "1 d 1 h"), (1440, "1 d")],
)
def test_a_span_is_two_words_long(minutes: int, words: str) -> None:
    assert span(timedelta(minutes=minutes)) == words


def test_foreign_runners_are_counted_not_listed() -> None:
    theirs = Runner(id=7, name="theirs", labels=frozenset({"cml"}), online=True, busy=False)
    forge, provider = embodied(
        World(machines=[OLD.machine], runners=[OLD.runner(online=True), theirs])
    )
    outputs, summary = status(HERE, forge, provider, FakeClock())
    assert [each["name"] for each in json.loads(outputs["status"])] == ["cml-0123456789"]
    assert "1 other runner, not created by cml-runner." in summary
    assert "Searched for machines in r1, r2." in summary
    assert "theirs" not in outputs["status"] + table([])


@pytest.mark.parametrize("labels", [frozenset({"cml"}), YOUNG.runner().labels])
def test_a_runner_belongs_to_a_machine_by_its_mark_and_not_by_its_name(
    labels: frozenset[str],
) -> None:
    """Somebody's own, and one of another launch."""
    namesake = replace(OLD.runner(online=True, busy=True), labels=labels)
    (shown, *others) = rows([OLD.machine], [namesake], HERE, ProviderName.AWS, NOW, {})
    assert (shown.runner, shown.state) == (None, "none")
    assert shown.notes == "a runner that its launch did not create has its name"
    assert [other.runner for other in others] == ([namesake] if len(labels) > 1 else [])


def test_no_cloud_no_machines() -> None:
    forge = FakeForge()
    assert "Machines were not searched for" in status(HERE, forge, None, FakeClock())[1]
    _, summary = status(HERE, forge, FakeProvider(), FakeClock(), ["r1"])
    assert "There are none that cml-runner created." in summary


class Priceless(FakeProvider):
    """Its credentials may not ask for prices."""

    def cost(self, instance: Instance, now: datetime) -> float | None:
        raise CredentialsError("No.")


def test_a_price_that_may_not_be_asked_for_is_unknown() -> None:
    provider = Priceless()
    provider.instances = {"i": OLD.machine}
    assert "| unknown |" in status(HERE, FakeForge(), provider, FakeClock())[1]


# --- prices


def price(hour: float, usd: str) -> dict[str, object]:
    return {
        "Timestamp": datetime(2026, 11, 23, tzinfo=UTC) + timedelta(hours=hour),
        "SpotPrice": usd,
    }


def test_a_spot_machine_costs_what_its_pool_cost_at_each_time() -> None:
    since, until = datetime(2026, 11, 23, 1, tzinfo=UTC), datetime(2026, 11, 23, 4, tzinfo=UTC)
    history = [price(3, "0.400000"), price(0, "0.200000"), price(9, "9.0")]
    assert cost(history, since, until) == pytest.approx(2 * 0.2 + 1 * 0.4)
    assert cost([], since, until) is None
    assert cost([price(9, "9.0")], since, until) is None
