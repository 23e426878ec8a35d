"""A strategic merge, as `kubectl patch` and `kustomize` do it: mappings by key, lists of named
things by their name, other lists as a whole. Pure.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/.
Which lists are merged by which key is said by `x-kubernetes-patch-merge-key` of the API's
description; a test compares.
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
"""Lists in a pod -> key by which their parts are the same."""
APPENDED = ("tolerations",)
"""Kubernetes replaces this list; who adds a taint here means it besides ours."""


def merged(base: Any, patch: Any, name: str = "") -> Any:
    """`base` with `patch` on it; null removes. Neither is changed."""
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
            return [*base, *(one for one in patch if one not in base)]
        if key := KEYS.get(name):
            return _by(key, base, patch)
    return (
        merged({}, patch, name)
        if isinstance(patch, Mapping) and not isinstance(base, Mapping)
        else patch
    )


def _by(key: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """Parts of the same key are merged where they stand; new ones come after."""
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if one.get("$patch") != "replace"]
    theirs = {one[key]: one for one in patch}
    found = [
        merged(one, theirs.pop(one[key])) if one[key] in theirs else one
        for one in base
        if theirs.get(one[key], {}).get("$patch") != "delete"
    ]
    return [*found, *(one for one in theirs.values() if one.get("$patch") != "delete")]
