"""The golden files' own helper: nothing is lost between what is produced and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import goldens

WORDS = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.just(1.0), st.sampled_from("ab"))
KEYS = st.sampled_from(["a", "b", "a/b", "~", "~1", "", "0"])
DOCUMENTS = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@given(DOCUMENTS, DOCUMENTS)
def test_a_document_comes_back_as_it_was(old: Any, new: Any) -> None:
    before = json.dumps(old)
    patch = json.loads(goldens.lines(goldens.difference(old, new)))
    assert goldens.canonical(goldens.patched(old, patch)) == goldens.canonical(new)
    assert json.dumps(old) == before


RUNG = {"zone": "a", "type": "large", "tags": {str(number): "word" for number in range(20)}}


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}]),
        ({"a": 1}, {"b": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}]),
        ({"a/b": {"c": [0]}}, {"a/b": {"c": [0, 1]}}, None),
        (
            {"made": [RUNG]},
            {"made": [RUNG, {**RUNG, "zone": "b"}]},
            [
                {"op": "copy", "from": "/made/0", "path": "/made/1"},
                {"op": "replace", "path": "/made/1/zone", "value": "b"},
            ],
        ),
        (
            ["first", RUNG, "third"],
            ["first", "new", RUNG],
            [
                {"op": "add", "path": "/1", "value": "new"},
                {"op": "remove", "path": "/3"},
            ],
        ),
    ],
)
def test_a_difference_says_what_differs_only(old: Any, new: Any, patch: Any) -> None:
    found = goldens.difference(old, new)
    assert patch is None or found == patch
    assert goldens.patched(old, found) == new


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "remove", "path": "/b"},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "copy", "from": "/b", "path": "/c"},
        {"op": "move", "from": "/a", "path": "/c"},
    ],
)
def test_a_patch_of_another_document_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises((KeyError, IndexError, ValueError)):
        goldens.patched({"a": 1, "list": [1, 2]}, [operation])


CASES = {"default": {"a": 1, "b": [RUNG]}, "spot, then any": {"a": True, "b": [RUNG]}}


def test_missing_files_are_written_and_that_fails_once(tmp_path: Path) -> None:
    for missing in ("default", "spot-then-any"):
        if (tmp_path / f"{missing}.json").exists():
            (tmp_path / f"{missing}.json").unlink()
        with pytest.raises(pytest.fail.Exception, match=missing):
            goldens.check(tmp_path, CASES)
        goldens.check(tmp_path, CASES)
    assert json.loads((tmp_path / "default.json").read_text()) == CASES["default"]
    assert json.loads((tmp_path / "spot-then-any.json").read_text()) == [
        {"op": "replace", "path": "/a", "value": True}
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"default": {"a": True, "b": [RUNG]}},
        {"default": {"a": 1.0, "b": [RUNG]}},
        {"spot, then any": {"a": 1, "b": [RUNG]}},
        {"spot, then any": {"a": True, "b": [RUNG, RUNG]}},
    ],
)
def test_what_is_not_what_the_file_says_fails(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception):
        goldens.check(tmp_path, CASES)
    with pytest.raises(AssertionError, match="from what the file says"):
        goldens.check(tmp_path, {**CASES, **changed})


def test_a_file_without_a_case_fails_and_so_do_two_cases_with_one_file(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception):
        goldens.check(tmp_path, CASES)
    with pytest.raises(AssertionError, match="spot-then-any"):
        goldens.check(tmp_path, {"default": CASES["default"]})
    with pytest.raises(AssertionError, match="two cases"):
        goldens.check(tmp_path, {"a b": 1, "a-b": 2})
