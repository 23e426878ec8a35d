"""The variables of this process, which others set for purposes of their own. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runner_action import credentials, secret_sources

OWN = "STATE_"
"""How the variables begin by which GitHub returns what this action has stored in GITHUB_STATE."""


def tidied(environ: Mapping[str, str]) -> dict[str, str]:
    """Without empty variables, such as `${{ vars.X }}` gives: they are as good as absent, but for
    what this action has stored itself. And credentials without what a file of Windows or a web page
    leaves around them."""
    present = {
        name: value for name, value in environ.items() if value.strip() or name.startswith(OWN)
    }
    secrets = secret_sources.VARIABLES & present.keys()
    return present | {name: credentials.trimmed(present[name]) for name in secrets}
