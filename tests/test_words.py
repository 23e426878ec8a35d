"""The linter of prose finds what it is for, and its list of what is left only shrinks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import prose
from tests.prose import Finding, Text
from tests.words import DIALECT, GLOSSARY, MESSAGES, PAGES, RULES, UNCHECKED, Rule

ROOT = Path(__file__).parents[1]


def found_in(text: str, file: str = "docs/some.md") -> list[tuple[int, str]]:
    read = Text(PAGES, file, 1, prose.prose_of(text))
    return [(finding.line, finding.words) for finding in prose.by_words(read)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.words[:40])
def test_each_rule_refuses_its_sentence(rule: Rule) -> None:
    found = list(prose.by_words(Text(MESSAGES, "some.py", 7, rule.sample)))
    assert f"write: {rule.write}" in {finding.advice for finding in found}
    assert {finding.line for finding in found} == {7}


def test_no_rule_is_a_second_one() -> None:
    """Each would miss something without the others."""
    for rule in RULES:
        others = [other for other in RULES if other is not rule]
        assert not any(
            other.expression().fullmatch(match[0])
            for match in rule.expression().finditer(rule.sample)
            for other in others
        ), rule.words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It waited, in\nvain.", [(1, "in\nvain")]),
        ("One.\n\nThe id of it.", [(3, "id")]),
        ("- of an `id` and\n- of `cloud\n  id`, no id", [(3, "id")]),
        ("```sh\ngit id\n```\nno id", [(4, "id")]),
        ("Write:\n\n    the id\n\nno id", [(5, "id")]),
        ("<!-- id -->id", [(1, "id")]),
        ("see [the id](docs/id.md)", [(1, "id")]),
        ("https://github.com/id github.com gitlab-runner docs/azure.md", []),
        ("oddly, an ID, forgery, client-id", []),
        ("`` a `id` b `` id", [(1, "id")]),
    ],
)
def test_only_prose_is_read(text: str, found: list[tuple[int, str]]) -> None:
    assert found_in(text) == found


def test_a_word_may_stand_where_developers_read() -> None:
    assert found_in("Waiting for the forge.", "docs/adding.md") == []
    assert found_in("Waiting for the forge.") == [(1, "forge")]


def test_a_generated_block_is_read_in_the_schema() -> None:
    block = (
        "<!-- generated from schema/inputs.schema.json: readme-inputs -->\nids\n"
        "<!-- end of readme-inputs -->\n"
    )
    assert found_in(prose.page_of("README.md", block)) == []


def test_messages_are_strings_of_three_words_that_are_no_docstrings() -> None:
    source = '"""Some doc of it."""\nraise Error(f"no id of {x}", "two words",\n  "an id here")\n'
    texts = list(prose.messages_of("some.py", source))
    assert sorted((text.line, text.prose) for text in texts) == [
        (2, "no id of "),
        (3, "an id here"),
    ]


def test_what_the_libraries_are_for_is_found() -> None:
    text = Text(PAGES, "docs/some.md", 1, "It is fine.\n\nIt recieves a free gift, forsooth.\n")
    found = {(finding.line, finding.words) for finding in prose.findings([text])}
    assert found == {(3, "forsooth"), (3, "free gift"), (3, "recieves")}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("word " * 40 + ".", []),
        ("word " * 41 + ".", [1]),
        ("word " * 30 + ";\nword " + "word " * 30, []),
        ("One.\n\n" + "word\n" * 41, [3]),
        ("word\n" * 21 + "\n" + "word\n" * 21, []),
        ("- " + "word " * 30 + "\n- " + "word " * 30, []),
        ("| " + "word " * 30 + "| " + "word " * 30 + "|", []),
        ("word " * 30 + "v1.2 " + "word " * 30, [1]),
    ],
)
def test_a_clause_of_more_than_40_words_is_found(text: str, lines: list[int]) -> None:
    found = prose.by_length(Text(PAGES, "docs/some.md", 1, text))
    assert [finding.line for finding in found] == lines


def test_all_three_kinds_are_read() -> None:
    texts = prose.texts()
    names = {text.file for text in texts}
    assert {"README.md", "schema/inputs.schema.json", "runner_action/errors.py"} <= names
    assert not any("/fakes" in name or "/clouds/" in name for name in names)
    assert len([text for text in texts if text.file == "schema/inputs.schema.json"]) > 150


def test_each_word_that_the_glossary_refuses_has_a_rule() -> None:
    page = (ROOT / "docs/glossary.md").read_text("utf-8")
    cells = re.findall(r"^\|[^|\n]*\|[^|\n]*\| *([^|\n]+?) *\|$", page, re.M)
    refused = {
        word
        for cell in cells
        for word in cell.split(", ")
        if word.strip() not in ("", "not", "---")
    }
    assert len(refused) > 10
    unknown = {word for word in refused - UNCHECKED.keys() if not any_rule(word)}
    assert unknown == set()
    assert UNCHECKED.keys() - refused == set()


def any_rule(word: str) -> bool:
    return any(rule.expression().search(word) for rule in GLOSSARY)


def test_the_list_of_what_is_left_may_only_shrink() -> None:
    def finding(file: str) -> Finding:
        return Finding(file, 1, "odd", "unexpected")

    found = [finding("a.py"), finding("a.py"), finding("b.py")]
    assert prose.over(found, {"a.py": 2}) == [finding("b.py")]
    assert prose.over(found, {"a.py": 1, "b.py": 1}) == found[:2]
    assert prose.tightened(found, {"a.py": 3, "b.py": 1, "c.py": 4}) == {"a.py": 2, "b.py": 1}
    assert prose.tightened(found, {"a.py": 1}) == {"a.py": 1}


def test_what_is_left_is_left_in_files_that_are_there() -> None:
    assert {file for file in prose.left() if not (ROOT / file).is_file()} == set()


def test_the_rules_are_all_in_one_list() -> None:
    assert RULES == GLOSSARY + DIALECT
