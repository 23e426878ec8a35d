"""A Kubernetes cluster: its API server and what happens behind it."""
