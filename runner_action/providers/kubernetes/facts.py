"""Kubernetes, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.kubernetes.table import SHARED
from runner_action.providers.traits import Traits

TRAITS = Traits(
    title="Kubernetes",
    variables=("KUBE",),
    pods=True,
    default_size=SHARED,
    # https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    secret_variables=("KUBECONFIG",),
    secret_files={
        "KUBECONFIG": "~/.kube/config",
        "": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    },
)
