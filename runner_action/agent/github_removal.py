"""How a GitHub runner leaves the list without a token for the API: by the removal token, which
is good for an hour.

As `config.sh remove` does it, but not by that: a job may have written another `config.sh`, or
another `.runner`.
"""

from __future__ import annotations

import json
from typing import Tuple

from . import github

POOL = 1
"""Of runners in no other group than the default one, on servers that have pools."""


class Forge(github.Forge):
    """With the removal token of the spec."""

    def _remove(self, runner: int, timeout: float) -> Tuple[int, str]:
        """https://github.com/actions/runner/blob/v2.336.0/src/Runner.Listener/Configuration/ConfigurationManager.cs
        (UnconfigureAsync); `use_v2_flow` is its UseRunnerAdminFlow, for servers without pools.
        """
        login = "RemoteAuth %s" % self._spec.removal_token
        asked = {"url": self._spec.repository_url, "runner_event": "remove"}
        status, text = self.ask("POST", "/actions/runner-registration", asked, timeout, login)
        if status != 200:
            raise OSError("HTTP %d to the removal token" % status)
        told = json.loads(text)
        if told.get("use_v2_flow"):
            return self.ask("DELETE", self._listed % runner, None, timeout, login)
        place = told["url"].rstrip("/"), self._known().get("poolId", POOL), runner
        path = "%s/_apis/distributedtask/pools/%d/agents/%d?api-version=6.0-preview" % place
        return self.ask("DELETE", path, None, timeout, "Bearer " + told["token"])
