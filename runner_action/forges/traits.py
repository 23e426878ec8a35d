"""What the rest of the launcher needs to know about GitHub and GitLab, without loading a client
library. The values are in `forges/NAME/facts.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Of one of them. The variables are those that it sets for its jobs."""

    title: str
    hosted: str
    """Address of the instance that the vendor runs."""
    hosts: tuple[str, ...]
    """Hosts that are always this forge; a leading dot stands for all hosts below."""
    other_hosts: tuple[str, ...]
    """Other hosts of the vendor's own instance: for browsers, for its API, for Git over SSH."""
    server_variable: str
    api_variable: str
    project_variable: str
    """The job's own project: its address, or its path on the server."""
    just_in_time: bool
    """Whether it registers a runner for a single job beforehand and returns a configuration."""
    restarts_from_outside: bool
    """Whether the end of a run can start cml-runner, without any machine."""
    own_label_suffices: bool
    """Whether jobs may ask for the label that a launch outputs, so that it needs no other."""
    case_sensitive_labels: bool
    """Whether labels that differ only in the case of letters are different labels."""
    rerun_advice: str = ""
    """What follows "After that," in the summary: which re-run needs a machine that has ended, and
    which creates one. Markdown."""
    names_no_owner: str | None = None
    """How paths begin that do not name the owner of the repositories."""
    passing_tokens: tuple[str, ...] = ()
    """How tokens begin that are valid for an hour at most."""
    pages: frozenset[str] = frozenset()
    """What follows owner and name in the addresses of a repository's pages."""
    api_paths: str = ""
    """How the paths of its API begin, before owner and name: a regular expression."""
    nameless_paths: str = ""
    """How the paths of its API begin, if they may name a repository by a number alone."""
    secret_variables: tuple[str, ...] = ()
    """Variables with a secret that its client reads, or that hold one by mistake."""
    secret_files: Mapping[str, str] = field(default_factory=dict)
    """Variables that name a file with secrets, and the file that is read without the variable."""

    def label_key(self, label: str) -> str:
        """What two labels have in common if they are the same label to it."""
        return label if self.case_sensitive_labels else label.lower()
