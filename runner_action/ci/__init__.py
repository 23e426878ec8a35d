"""Writes logs, errors, outputs and summaries in the form that GitHub, GitLab or a terminal
expects. The only package that prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import assert_never

from runner_action.ci.base import Front
from runner_action.ci.github import GitHubFront
from runner_action.ci.gitlab import GitLabFront
from runner_action.ci.terminal import TerminalFront
from runner_action.forges import job_environment
from runner_action.model import ForgeName


def front_for(environ: Mapping[str, str], *, as_json: bool) -> Front:
    """The front of the CI whose job this is, unless the outputs are requested as JSON."""
    for name in ForgeName:
        if job_environment(name, environ).is_here and not as_json:
            return _front(name, environ)
    return TerminalFront(sys.stdout, sys.stderr, as_json=as_json)


def _front(name: ForgeName, environ: Mapping[str, str]) -> Front:
    match name:
        case ForgeName.GITHUB:
            return GitHubFront(environ, sys.stdout)
        case ForgeName.GITLAB:
            return GitLabFront(environ, sys.stdout)
        case _ as unknown:
            assert_never(unknown)
