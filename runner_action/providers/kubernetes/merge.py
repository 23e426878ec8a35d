"""A strategic merge, like that of `kubectl patch` and `kustomize`: mappings by key, lists of named
entries by name, other lists as a whole. Pure.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/.
`x-kubernetes-patch-merge-key` in the API's description says which lists are merged by which key; a
test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEYS: Mapping[str, str] = {
    "containers": "name",
    "devices": "devicePath",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists in a pod, and the key by which their entries are matched."""
APPENDED = ("tolerations",)
"""Kubernetes replaces this list; a user who adds a toleration needs ours, too."""


def merged(base: Any, patch: Any, name: str = "") -> Any:
    """`base` with `patch` applied; null removes. Neither is changed."""
    if isinstance(base, Mapping) and isinstance(patch, Mapping):
        if patch.get("$patch") == "replace":
            return {key: value for key, value in patch.items() if key != "$patch"}
        kept = {key: value for key, value in base.items() if key not in patch}
        return kept | {
            key: merged(base.get(key), value, key)
            for key, value in patch.items()
            if value is not None
        }
    if isinstance(base, Sequence) and isinstance(patch, Sequence) and not isinstance(patch, str):
        if name in APPENDED:
            return [*base, *(entry for entry in patch if entry not in base)]
        if key := KEYS.get(name):
            return _by(key, base, patch)
    return (
        merged({}, patch, name)
        if isinstance(patch, Mapping) and not isinstance(base, Mapping)
        else patch
    )


def _by(key: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """Entries with the same key are merged in place; new entries are appended."""
    if any(entry.get("$patch") == "replace" for entry in patch):
        return [entry for entry in patch if entry.get("$patch") != "replace"]
    patches = {entry[key]: entry for entry in patch}
    result = [
        merged(entry, patches.pop(entry[key])) if entry[key] in patches else entry
        for entry in base
        if patches.get(entry[key], {}).get("$patch") != "delete"
    ]
    return [*result, *(entry for entry in patches.values() if entry.get("$patch") != "delete")]
