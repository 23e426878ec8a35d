"""Which regions a search covers, and which machines belong to a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from runner_action.model import OWNER_TAG, REPOSITORY_TAG, Instance, Repository
from runner_action.runners.context import Search, created_for
from tests.fakes import FakeProvider
from tests.test_reap import HERE, OLD, THERE


class Recording(FakeProvider):
    """Records its calls."""

    def __init__(self, *, regional: bool) -> None:
        super().__init__()
        self.regional = regional
        self.listed = 0
        self.searched: list[Sequence[str]] = []

    def regions(self) -> Sequence[str]:
        self.listed += 1
        return ["r1", "r2"] if self.regional else []

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:
        assert set(tags) == {REPOSITORY_TAG}
        self.searched.append(regions)
        return []


@pytest.mark.parametrize(
    ("regional", "only", "searched", "complete"),
    [
        (True, None, ["r1", "r2"], True),
        (True, ["r2"], ["r2"], False),
        (True, (), (), False),
        (False, None, [], True),
        (False, ["r2"], ["r2"], True),
        (False, (), (), True),
    ],
)
def test_the_regions_of_a_search_and_whether_it_is_complete(
    regional: bool, only: Sequence[str] | None, searched: Sequence[str], complete: bool
) -> None:
    provider = Recording(regional=regional)
    search = Search(HERE, provider, only)
    search.machines()
    search.machines()
    assert provider.searched == [searched, searched]
    assert search.is_complete is complete
    assert provider.listed == (only is None), "the regions of an account are listed once"


@pytest.mark.parametrize(
    ("machine", "is_own"),
    [
        (OLD.machine, True),
        (replace(OLD.machine, proven=False), False),
        (replace(OLD.machine, tags={**OLD.machine.tags, OWNER_TAG: "other"}), False),
        (replace(OLD.machine, tags={}), False),
    ],
)
def test_a_machine_belongs_to_a_repository_by_its_tags_and_a_proof(
    machine: Instance, is_own: bool
) -> None:
    def own(repository: Repository) -> bool:
        return created_for(repository, [machine]) == [machine]

    assert own(HERE) is is_own
    assert not own(THERE)
