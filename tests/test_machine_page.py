"""docs/machine.md, held to what boots look up."""

from __future__ import annotations

from tests.boot.promises import PAGE, PROMISES, broken, looks, rows


def test_every_row_of_the_page_has_its_looks() -> None:
    assert rows(PAGE.read_text("utf-8")) == list(PROMISES)


def test_a_row_is_looked_up_or_says_why_not() -> None:
    assert all(bool(row.first or row.later) != bool(row.unseen) for row in PROMISES.values())


def test_what_is_missing_breaks_a_promise() -> None:
    assert broken({}, later=False).keys() == looks(later=False).keys()
