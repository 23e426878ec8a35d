"""Kubernetes, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

TRAITS = Traits(pods=True)
