"""The words that are not written, and what is written instead: docs/glossary.md and the dialect
that this project once had. `python -m tests.prose` looks for them, test_words.py tries each."""

from __future__ import annotations

import re
from dataclasses import dataclass

PAGES = "pages"
SCHEMA = "schema"
MESSAGES = "messages"


@dataclass(frozen=True)
class Rule:
    words: str
    """A regular expression over prose without code, any case; a space is any white space."""
    write: str
    """What to write instead."""
    sample: str
    """A sentence that the rule refuses."""
    keeps_case: bool = False
    """Whether capital letters count."""
    not_in: frozenset[str] = frozenset()
    """Pages for developers, or of a cloud that has the word as its own."""

    def expression(self) -> re.Pattern[str]:
        return _compiled(self.words, self.keeps_case)


def _compiled(words: str, keeps_case: bool) -> re.Pattern[str]:
    flags = re.NOFLAG if keeps_case else re.IGNORECASE
    bounded = rf"(?<![\w/.@-])(?:{words})(?![\w/-]|\.\w)"
    return re.compile(bounded.replace(" ", r"\s+"), flags)


DEVELOPERS = frozenset(
    {
        "docs/adding.md",
        "docs/architecture.md",
        "docs/glossary.md",
        "docs/testing.md",
        "CONTRIBUTING.md",
    }
)

GLOSSARY = (
    Rule("forges?", "GitHub or GitLab", "Waiting for the forge.", not_in=DEVELOPERS),
    Rule("VMs?", "machine", "The VM starts.", keeps_case=True, not_in=frozenset({"docs/gcp.md"})),
    Rule("rungs?", "placement", "It climbs to the next rung."),
    Rule("owner labels?", "mark", "It has the owner label."),
    Rule("expiry", "lease", "The expiry of a machine is in its tags."),
    Rule("garbage[ -]collect(?:s|ed|ion)", "sweep", "The launch starts a garbage collection."),
    Rule(
        "(?:takes?|took|taken|taking) off the (?:runner )?list",
        "deregister",
        "It is taken off the list.",
    ),
    Rule(
        "(?:takes?|took) (?:itself|it|them|the runner) off the (?:runner )?list",
        "deregister",
        "It takes itself off the list.",
    ),
    Rule("(?:leaves?|left) the (?:runner )?list", "deregister", "The runner leaves the list."),
    Rule(
        "(?:takes?|took|taken|taking) (?:\\w+ )?back",
        "roll back; of a cloud: reclaim",
        "A launch that fails takes it back.",
    ),
    Rule("clean-ups?", "cleanup", "The clean-up step runs."),
    Rule("re-?register(?:s|ed)?", "register again", "The runner is re-registered."),
)
"""From the last column of docs/glossary.md."""

UNCHECKED = {
    "agent (our program on the machine)": "the agent is the other program of the project",
    "node": "Kubernetes has nodes",
    "up": "a common word with other senses",
    "ready": "a common word with other senses",
    "candidate": "GitHub has release candidates",
    "retry (GitLab's word)": "right of GitLab itself",
    "re-run (GitHub's word)": "right of GitHub itself",
    "custom data (Azure's word)": "right on Azure's page",
    "preemption (Google's word)": "right of Google Cloud itself",
    "eviction (Azure's and Kubernetes' word)": "right of these two",
    "reservation": "Azure's and Google Cloud's capacity reservations",
    "lock": "apt, Azure's groups and files have locks",
    "deployment": "Kubernetes and Azure have deployments",
}
"""Words of that column that no rule can hold, and why."""

DIALECT = (
    Rule("in vain", "say what failed or did not happen", "It waited 600 s, in vain."),
    Rule("be it", "whether … or …", "Any runner, be it busy or idle."),
    Rule(
        "as is told|it is told|is told|are told|was told|told (?:as|by|of|apart)",
        "reported, passed, known from",
        "Mistakes are told all at once.",
    ),
    Rule("tells? of", "describe, report", "The outputs tell of the runner."),
    Rule("that very|the very|this very", "the same, exactly this", "It is that very file."),
    Rule("who knows|nobody knows of", "say what is known", "A machine that nobody knows of."),
    Rule(
        "(?:be|is|are|was|were) to be (?:had|reached|seen)|be had",
        "available, can be reached",
        "No spot machine is to be had.",
    ),
    Rule("(?:comes?|came|coming) to (?:an|no) end", "finish, end", "The call came to no end."),
    Rule("(?:says?|said) yes", "accept", "EC2 said yes."),
    Rule(
        "(?:is|are|was|were|be) left alone",
        "not touched, skipped, ignored",
        "The machine is left alone.",
    ),
    Rule("leaves? (?:\\w+ ){1,3}alone", "does not touch, skips", "It leaves runs of forks alone."),
    Rule("who(?:so|m)?ever|whom", "anyone who, say who", "Attempts by whomever count."),
    Rule("shall", "must, will or should", "The machine shall trust them."),
    Rule("odd", "unexpected", "It lists what is odd."),
    Rule("wants", "needs, must be", "It wants one of the words."),
    Rule(
        "(?:ends?|ended|ending) (?:itself|themselves)",
        "shut down, delete itself",
        "The machine ends itself.",
    ),
    Rule("of (?:ours|theirs|mine)", "say whose", "A launch of ours made it."),
    Rule("(?:is|are) (?:ours|theirs)", "say whose", "The image is ours."),
    Rule(
        "some (?:\\d[\\d,.]*|two|three|four|five|six|ten|twenty|thirty|forty|fifty|hundred)",
        "about",
        "There are some 250 calls.",
    ),
    Rule("for ever", "forever, without limit", "It is tried for ever."),
    Rule(
        "look-ups?",
        "lookup (noun), look up (verb)",
        "All look-ups run side by side.",
    ),
    Rule("ids?", "ID", "The id of the run.", keeps_case=True),
    Rule(
        "(?:github|gitlab|kubernetes|azure|docker|linux|python)(?!: )",
        "the name with its capital letters",
        "Start it on gitlab today.",
        keeps_case=True,
    ),
    Rule("word by word|every word", "reference, details", "GitHub, word by word."),
    Rule("mends?|mended|mending", "fix", "It is mended on a branch."),
    Rule("(?<!there\\s)is no(?! longer)", "is not a valid …, is not …", "It is no image of Azure."),
    Rule("but for", "except", "All of it, but for the disk."),
    Rule("lies? (?:at|beside)|lay at", "is stored at, is next to", "The claim lies at GitHub."),
    Rule(
        "somebody|anybody|nobody|everybody",
        "someone, anyone, no one, everyone",
        "Somebody else made it.",
    ),
    Rule(
        "(?:is|are|was|were|be|been) asked (?:once|again|for|what|whether|by|side|at|nothing)",
        "query, request, call, try again",
        "EC2 is asked once.",
    ),
    Rule("puts? up with", "tolerate", "Taints that it puts up with."),
    Rule(
        "needs? no (?:word|more words)|without a word",
        "say what is missing",
        "It ends without a word.",
    ),
    Rule(
        "(?:stands?|stood) in (?:the|a|its|this|that|no)",
        "is in",
        "The reason stands in the table.",
    ),
)

RULES = GLOSSARY + DIALECT
