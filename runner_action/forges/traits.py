"""What the rest of the launcher needs to know of GitHub and GitLab without loading either. The
values are in `forges/NAME/facts.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Of one of them. Variables are those that it gives to its jobs."""

    title: str
    hosted: str
    """Address of the one that its maker runs."""
    hosts: tuple[str, ...]
    """Hosts that are nobody else's; those that begin with a dot, with all below them."""
    server_variable: str
    api_variable: str
    project_variable: str
    """The job's own project: its address, or its path at the server."""
    just_in_time: bool
    """A runner for a single job can be registered beforehand, by a configuration."""
    restarts_from_outside: bool
    """Something of ours can start when a run ends, without any machine."""
    own_label_suffices: bool
    """Jobs may ask for the label that a launch puts out, so that a machine needs no other."""
    names_no_owner: str | None = None
    """What the paths of places begin with that do not tell whose repositories they hold."""
    passing_tokens: tuple[str, ...] = ()
    """What tokens begin with that are good for an hour at most."""
