"""What a requested name becomes: nothing is refused, and every cloud allows the result."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner_action import claim, inputs
from runner_action.errors import InputError
from runner_action.model import Run
from runner_action.naming import (
    KEY_PART,
    NAME_LENGTH,
    base_name,
    beginning_of,
    is_requested_as,
    local_name,
    names,
)

RUN = Run(derived_name="cml-0123456789", key="0123456789abcdef" * 4, title="")
SLUG = "feature-1234-a-very-long-description-of-what-this-branch-is-for"
"""63 characters, as $CI_COMMIT_REF_SLUG has at most.
https://docs.gitlab.com/ci/variables/predefined_variables/"""
NAMES = {
    "train": "train",
    "session_08.gpu": "session-08-gpu",
    "Train GPU": "train-gpu",
    "7294-main": "cml-7294-main",
    "-x-": "x",
    "größe": "gr-e",
    "\u65e5\u672c-a": "a",
    "a" * 41: "a" * 41,
    SLUG: "feature-1234-a-very-long-description-1962",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_as_cml_took_it(name: str) -> None:
    assert beginning_of(name) == NAMES[name]
    full = base_name(name, RUN)
    assert full == f"{NAMES[name]}-01234567"
    assert is_requested_as(name, full)


@given(st.text(st.characters(codec="utf-8"), max_size=255).filter(re.compile("[A-Za-z0-9]").search))
def test_every_name_is_one_that_the_clouds_allow(name: str) -> None:
    """RFC 1035 is the narrowest: Google Cloud.
    https://docs.cloud.google.com/compute/docs/naming-resources"""
    assert re.fullmatch("[a-z][a-z0-9-]*[a-z0-9]", base_name(name, RUN))
    assert len(base_name(name, RUN)) <= NAME_LENGTH
    assert is_requested_as(name, base_name(name, RUN))
    assert re.fullmatch("[A-Za-z0-9._-]{1,64}", local_name(name))


@pytest.mark.parametrize("name", ["cml-turn", "cml-turn-x", "cml-turn-0123456789"])
def test_no_name_makes_a_runner_a_turn(name: str) -> None:
    assert claim.is_turn(claim.turn(["cml"]))
    base = base_name(name, RUN)
    assert not any(map(claim.is_turn, [*names(base, 1), *names(base, 2), f"{base}-0123abcd"]))


def test_long_names_that_begin_alike_differ() -> None:
    assert beginning_of(SLUG) != beginning_of(f"{SLUG}2")
    assert len(beginning_of(SLUG)) == NAME_LENGTH - KEY_PART - 1


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("My.Runner_1", "My.Runner_1"),
        ("a/b c", "a-b-c"),
        ("../x", "x"),
        (SLUG * 2, (SLUG * 2)[:64]),
    ],
)
def test_this_machine_keeps_what_it_can(name: str, local: str) -> None:
    assert local_name(name) == local.strip("-.")


@pytest.mark.parametrize("name", ["---", "\u65e5\u672c", "_", "x" * 256])
def test_a_name_of_which_nothing_is_left_or_too_long(name: str) -> None:
    flags = {"repo": ["octo/train"], "token": ["canary"], "cloud": ["aws"], "name": [name]}
    with pytest.raises(InputError, match="must contain a letter or a digit, and at most 255"):
        inputs.parse(inputs.Raw(flags=flags, environ={}), lambda path: None)
