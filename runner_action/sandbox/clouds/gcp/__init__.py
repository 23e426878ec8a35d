"""Google Cloud: Compute Engine and the token service."""
