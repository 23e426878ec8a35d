"""Deregisters a GitHub runner without an API token: with the removal token, which is valid for an
hour.

This does the same as `config.sh remove`, which it cannot call: a job may have replaced `config.sh`
or `.runner`.
"""

from __future__ import annotations

import json
from typing import Tuple

from . import github

POOL = 1
"""The pool of runners in the default group, on servers that have pools."""


class Forge(github.Forge):
    """With the removal token of the spec."""

    def _remove(self, runner: int, timeout: float) -> Tuple[int, str]:
        """https://github.com/actions/runner/blob/v2.336.0/src/Runner.Listener/Configuration/ConfigurationManager.cs
        (UnconfigureAsync). `use_v2_flow` is its UseRunnerAdminFlow, for servers without pools.
        """
        login = "RemoteAuth %s" % self._spec.removal_token
        body = {"url": self._spec.repository_url, "runner_event": "remove"}
        status, text = self.ask("POST", "/actions/runner-registration", body, timeout, login)
        if status != 200:
            raise OSError("HTTP %d for the removal token" % status)
        tenant = json.loads(text)
        if tenant.get("use_v2_flow"):
            return self.ask("DELETE", self._listed % runner, None, timeout, login)
        agent = tenant["url"].rstrip("/"), self._assigned().get("poolId", POOL), runner
        path = "%s/_apis/distributedtask/pools/%d/agents/%d?api-version=6.0-preview" % agent
        return self.ask("DELETE", path, None, timeout, "Bearer " + tenant["token"])
