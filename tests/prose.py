"""The linter of prose: `python -m tests.prose` prints what is wrong and exits 1 if anything is.

It reads the pages, the descriptions and messages of the schema, and the messages of the product:
each string of `runner_action` that has three words and is no docstring. It looks for the words of
`words.py`, and has codespell look for misspellings and proselint for archaisms, clichés and
redundancies. A clause may have 40 words.

`words_left.json` says how many findings a file of the product may still have. A number may only go
down: `python -m tests.prose --tighten` writes today's, where they are lower.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from proselint.checks import __register__
from proselint.config import DEFAULT, Config
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

from schema.generate import BLOCK
from tests.words import MESSAGES, PAGES, RULES, SCHEMA

ROOT = Path(__file__).parents[1]
LEFT = ROOT / "tests/words_left.json"
CONFIG: Config = {
    "max_errors": 1000,
    # Straight quotes are what code and shells have.
    "checks": {**DEFAULT["checks"], "typography": False},
}
KNOWN = "aks,nd,te,ot"
"""For codespell: a service and a series of Azure."""


@dataclass(frozen=True)
class Text:
    """A piece of prose. Its first line is line `line` of `file`, a path from the root."""

    kind: str
    file: str
    line: int
    prose: str


@dataclass(frozen=True)
class Finding:
    file: str
    line: int
    words: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {' '.join(self.words.split())!r}: {self.advice}"


LONGEST = 40
"""Words of a clause."""

CLAUSE = re.compile(r"(?:[^.;:|\n]|[.;:](?=[^\s*])|\n(?!\s*(?:[-*|#>\n]|\d+\.)))+")
FENCED = re.compile(r"^( *)```.*?^\1```", re.M | re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+", re.M)
COMMENT = re.compile(r"<!--.*?-->", re.S)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
TARGET = re.compile(r"(?<=\])\([^)\s]*\)")
ADDRESS = re.compile(r"\b(?:https?|urn):[^\s)>|]+")


def prose_of(text: str) -> str:
    """Markdown without what is code: blocks, spans, addresses. The lines stay where they are."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    def span(match: re.Match[str]) -> str:
        return "·" + "\n" * match[0].count("\n")

    for pattern in (FENCED, INDENTED, COMMENT):
        text = pattern.sub(blank, text)
    for pattern in (CODE, TARGET, ADDRESS):
        text = pattern.sub(span, text)
    return text


def listed() -> list[str]:
    """The pages that are tracked, or will be."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def pages() -> Iterator[Text]:
    """Without decisions up to 0037, which are history: they keep their words."""
    for name in listed():
        if not re.match(r"docs/decisions/00([0-2]\d|3[0-7])-", name):
            yield Text(PAGES, name, 1, page_of(name, (ROOT / name).read_text("utf-8")))


def page_of(name: str, text: str) -> str:
    """The prose of a page, without its generated blocks, which are read in the schema, without the
    glossary's column of words that are not used, and without the titles of decisions."""
    text = BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
    if name == "docs/decisions/README.md":
        text = re.sub(r"^\| \[.*$", "", text, flags=re.M)
    if name == "docs/glossary.md":
        text = re.sub(r"^(\|[^|\n]*\|[^|\n]*\|)[^|\n]*\|$", r"\1", text, flags=re.M)
    return prose_of(text)


TEXTS = re.compile(r'"(?:description|title|x-message|x-plain)": ("(?:[^"\\]|\\.)*")')
PLACEHOLDER = re.compile(r"\{[^}]*\}")


def schema_texts() -> Iterator[Text]:
    name = "schema/inputs.schema.json"
    for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
        for text in TEXTS.findall(line):
            yield Text(SCHEMA, name, number, prose_of(PLACEHOLDER.sub("", json.loads(text))))


def messages() -> Iterator[Text]:
    """Of the product. The embedded world has its words from the vendors, all but the demo's."""
    for file in sorted((ROOT / "runner_action").rglob("*.py")):
        name = str(file.relative_to(ROOT))
        if "/sandbox/" not in name or name.endswith("/demo.py"):
            yield from messages_of(name, file.read_text("utf-8"))


SHELL = "/dev/null"
"""A text with it is a script."""


def messages_of(name: str, source: str) -> Iterator[Text]:
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) not in statements and len(node.value.split()) >= 3 and SHELL not in node.value:
            yield Text(MESSAGES, name, node.lineno, prose_of(node.value))


def texts() -> list[Text]:
    return [*pages(), *schema_texts(), *messages()]


def by_words(text: Text) -> Iterator[Finding]:
    for rule in RULES:
        if text.file in rule.not_in:
            continue
        for match in rule.expression().finditer(text.prose):
            yield Finding(text.file, line_of(text, match.start()), match[0], f"write: {rule.write}")


def line_of(text: Text, position: int) -> int:
    """Only a page has its lines where the file has them."""
    return text.line + (text.prose.count("\n", 0, position) if text.kind == PAGES else 0)


def by_length(text: Text) -> Iterator[Finding]:
    """Clauses that nobody reads in one go: up to a full stop, colon, semicolon, or the end of a
    paragraph, list item or cell."""
    for match in CLAUSE.finditer(text.prose):
        count = len(match[0].split())
        if count > LONGEST:
            begin = " ".join(match[0].split()[:8])
            line = line_of(text, match.end() - len(match[0].lstrip()))
            yield Finding(text.file, line, begin, f"{count} words, at most {LONGEST}")


def by_proselint(text: Text) -> Iterator[Finding]:
    if not text.prose.strip():
        return
    for result in LintFile(text.file, text.prose).lint(CONFIG):
        # Positions are those of a text with one more line before it.
        start, end = (position - 1 for position in result.check_result.span)
        advice = f"proselint: {result.check_result.message}"
        yield Finding(text.file, line_of(text, start), text.prose[start:end], advice)


def by_codespell(read: Iterable[Text]) -> Iterator[Finding]:
    """All texts at once, as lines of its standard input."""
    lines = [
        (text.file, text.line + (number if text.kind == PAGES else 0), line)
        for text in read
        for number, line in enumerate(text.prose.splitlines())
    ]
    printed = subprocess.run(
        [Path(sys.executable).with_name("codespell"), "--ignore-words-list", KNOWN, "-"],
        input="\n".join(line for _, _, line in lines),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for number, word, right in re.findall(r"^(\d+): .*\n\s*(.*?) ==> (.*)$", printed, re.M):
        file, line, _ = lines[int(number) - 1]
        yield Finding(file, line, word, f"codespell: {right}")


def findings(read: list[Text]) -> list[Finding]:
    CheckRegistry().register_many(__register__)
    return [
        *(finding for text in read for finding in by_words(text)),
        *(finding for text in read for finding in by_length(text)),
        *(finding for text in read for finding in by_proselint(text)),
        *by_codespell(read),
    ]


def left() -> dict[str, int]:
    """How many findings a file may still have."""
    counts: dict[str, int] = json.loads(LEFT.read_text("utf-8"))
    return counts


def over(found: Iterable[Finding], allowed: Mapping[str, int]) -> list[Finding]:
    """The findings of files that have more than they may."""
    listed = list(found)
    counts = Counter(finding.file for finding in listed)
    return [finding for finding in listed if counts[finding.file] > allowed.get(finding.file, 0)]


def tightened(found: Iterable[Finding], allowed: Mapping[str, int]) -> dict[str, int]:
    """No file may have more than it has, and none more than it might."""
    counts = Counter(finding.file for finding in found)
    lowest = {file: min(number, counts[file]) for file, number in sorted(allowed.items())}
    return {file: number for file, number in lowest.items() if number}


def main(words: list[str]) -> int:
    listed = findings(texts())
    allowed = left()
    if "--all" in words:
        allowed = {}
    if "--tighten" in words:
        LEFT.write_text(json.dumps(tightened(listed, allowed), indent=2) + "\n", "utf-8")
        return 0
    wrong = over(listed, allowed)
    for finding in sorted(wrong, key=lambda finding: (finding.file, finding.line)):
        print(finding)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
