"""What gitlab-runner sends of a job besides its state: its log, in pieces, and its artifacts.

lib/api/ci/runner.rb and app/services/ci/append_build_trace_service.rb of GitLab's source.
"""

from __future__ import annotations

import gzip

from flask import request

INTERVAL = 3
"""Seconds between two pieces of a log while somebody has the job's page open; else 60
(`UPDATE_FREQUENCY_WHEN_BEING_WATCHED` in lib/gitlab/ci/trace.rb)."""
KEEP = "surrogateescape"
"""How bytes that are no text are kept: a piece may end in the middle of a character."""


class Reports:
    """Logs, and variables of `artifacts: reports: dotenv`, by the id of a job."""

    def __init__(self) -> None:
        self.traces: dict[int, str] = {}
        self.dotenv: dict[int, dict[str, str]] = {}

    def append(self, number: int) -> tuple[int, dict[str, str]]:
        """Appends the request's body to a log, at its `Content-Range`. Returns the status and
        headers of the response."""
        place = request.headers.get("Content-Range")
        if place is None:
            return 400, {}
        log = self.traces.get(number, "").encode("utf-8", KEEP)
        start = int(place.partition("-")[0])
        if start > len(log):
            return 416, {"Range": f"0-{len(log)}"}
        log = log[:start] + request.get_data()
        self.traces[number] = log.decode("utf-8", KEEP)
        return 202, {"Range": f"0-{len(log)}", "X-GitLab-Trace-Update-Interval": str(INTERVAL)}

    def keep(self, number: int) -> None:
        """An upload, as multipart/form-data. https://docs.gitlab.com/ci/yaml/artifacts_reports/"""
        file = request.files["file"].read()
        if request.args.get("artifact_type") != "dotenv":
            return
        lines = gzip.decompress(file).decode("utf-8").splitlines()
        self.dotenv[number] = dict(line.split("=", 1) for line in lines)
