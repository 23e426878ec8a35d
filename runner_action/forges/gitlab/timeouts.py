"""GitLab's limits on the time of a job. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT = 3600
"""Seconds. GitLab's own default timeout of a project.
https://docs.gitlab.com/ci/pipelines/settings/#set-a-limit-for-how-long-jobs-can-run"""
SHORTEST_JOB = 600
"""Seconds. GitLab accepts no shorter `maximum_timeout` of a runner.
https://docs.gitlab.com/ci/runners/configure_runners/#set-the-maximum-job-timeout"""
TOLD = 6 * 3600
"""Seconds. A default timeout of the project that is longer than this was set by someone who knows
of it; GitLab's own is an hour.
https://docs.gitlab.com/ci/pipelines/settings/#set-a-limit-for-how-long-jobs-can-run"""


def short_jobs(fields: Mapping[str, Any], longest: int | None) -> list[str]:
    """Sentences on the project's default timeout, if it ends jobs before the machine would.
    `fields`: GitLab's description of the project or group; groups have none. `longest`: seconds
    that the machine gives its jobs; None: any."""
    seconds = fields.get("build_timeout")
    if not seconds or seconds > TOLD or (longest is not None and longest <= seconds):
        return []
    sentence = (
        f"GitLab ends a job of this project after {_words(seconds)}, whatever it has done, unless"
        " the job has a `timeout` of its own, and nothing restarts it: write `timeout: 24h` in jobs"
        " that take longer (the project's: Settings > CI/CD > General pipelines)."
    )
    return [sentence]


def before_jobs(fields: Mapping[str, Any], longest: int | None) -> str:
    """Shell commands that tell a job in its log when it will be ended, if it has that default
    timeout; else empty. For a group, whose projects each have one of their own: GitLab's default.
    Jobs know theirs as CI_JOB_TIMEOUT.
    https://docs.gitlab.com/ci/variables/predefined_variables/"""
    seconds = fields.get("build_timeout") or DEFAULT
    if not short_jobs({"build_timeout": seconds}, longest):
        return ""
    return (
        f'[ "$CI_JOB_TIMEOUT" != {seconds} ]||echo "cml-runner: GitLab ends this job after'
        f' {_words(seconds)}. If it may take longer, write in it: timeout: 24h"'
    )


def _words(seconds: int) -> str:
    minutes = seconds // 60
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
