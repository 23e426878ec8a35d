"""The pages fit together: links lead to files and headings, and each decision is in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.prose import listed

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
"""Of a file: an address of elsewhere has a colon."""
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))


PAGES = [ROOT / name for name in listed()]


HERE = re.compile(r"\]\((#[^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.M | re.S)


def broken(page: Path, text: str) -> list[str]:
    """Links of a page to files that do not exist, or to headings that a page does not have."""
    targets = [(page.parent / target, target, anchor) for target, anchor in LINK.findall(text)]
    missing = [target for file, target, _ in targets if not file.resolve().exists()]
    nowhere = [
        target + anchor
        for file, target, anchor in targets
        if anchor and file.is_file() and anchor[1:] not in anchors(file.read_text("utf-8"))
    ]
    return missing + nowhere + [a for a in HERE.findall(text) if a[1:] not in anchors(text)]


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    assert broken(page, page.read_text("utf-8")) == []


def test_a_link_to_nowhere_is_found() -> None:
    text = (
        "# Right here: `a`, b\n[a](README.md) [b](gone.md#x) [c](https://example.org/gone.md)\n"
        "[d](#here) [e](README.md#here) [f](README.md#inputs) [g](#right-here-a-b)\n"
        "```sh\n# here\n```\n"
    )
    assert broken(ROOT / "README.md", text) == ["gone.md", "README.md#here", "#here"]


def test_all_pages_are_read() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "docs/architecture.md", "docs/decisions/README.md"} <= names


def test_decisions_are_numbered_and_listed() -> None:
    numbers = [int(file.name[:4]) for file in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    rows = [
        f"| [{file.stem[:4]}]({file.name}) | {file.read_text('utf-8').splitlines()[0][2:]} |"
        for file in DECISIONS
    ]
    assert [line for line in index.splitlines() if line.startswith("| [")] == rows


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_a_module_that_is_named_exists(page: str) -> None:
    """In code quotes or in a table of modules."""
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"\b(?:runner_action|schema|tests|image)/[\w./-]*\w/?", text))
    assert named
    assert {one for one in named if not (ROOT / one).exists()} == set()
