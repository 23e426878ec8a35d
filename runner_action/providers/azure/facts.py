"""Azure, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

TRAITS = Traits(wiped_too=("/var/lib/waagent/ovf-env.xml",), deletion_without_limit=True)
"""The file is what stood on the provisioning disc."""
