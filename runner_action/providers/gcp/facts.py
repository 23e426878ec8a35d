"""Google Cloud, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

TRAITS = Traits(metadata_hosts=("metadata.google.internal", "169.254.169.254"))
"""https://cloud.google.com/compute/docs/metadata/querying-metadata"""
