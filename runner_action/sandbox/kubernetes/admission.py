"""What the admission of a cluster makes of pods, and how it refuses them, in its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from runner_action.sandbox.kubernetes.shelf import Json

Admission = Callable[[Json], str]
"""Changes a pod, or returns why it is refused."""


class Injector:
    """A service mesh of a namespace: a plain container for each pod, which never ends by itself,
    unless the pod says no in the mesh's own words.
    https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/"""

    def __init__(self, kind: str = "labels", key: str = "sidecar.istio.io/inject") -> None:
        self._kind = kind
        self._key = key
        self.injected: list[str] = []

    def __call__(self, pod: Json) -> str:
        said = (pod["metadata"].get(self._kind) or {}).get(self._key)
        if said not in ("false", "disabled"):
            self.injected.append(pod["metadata"]["name"])
            proxy = {"name": "mesh-proxy", "image": "mesh/proxy:1", "command": ["sleep", "3600"]}
            pod["spec"]["containers"].append(proxy)
        return ""


class Refusing:
    """Admits so many pods of each Job, as a quota does, and refuses others with a message."""

    def __init__(self, message: str, after: int = 0) -> None:
        self._message = message
        self._after = after
        self._admitted: Counter[str] = Counter()

    def __call__(self, pod: Json) -> str:
        owner = pod["metadata"]["ownerReferences"][0]["uid"]
        if self._admitted[owner] >= self._after:
            return self._message
        self._admitted[owner] += 1
        return ""
