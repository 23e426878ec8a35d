"""What the admission of a cluster makes of pods, and how it refuses them, in its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from runner_action.sandbox.kubernetes.nodes import amount, containers
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


class SecurityContextConstraints:
    """OpenShift's `restricted-v2`: user IDs of the namespace's range, which it assigns.
    https://docs.redhat.com/en/documentation/openshift_container_platform/4.18/html/authentication_and_authorization/managing-pod-security-policies"""

    def __init__(self, first: int = 1000680000, count: int = 10000) -> None:
        self._users = range(first, first + count)

    def __call__(self, pod: Json) -> str:
        spec = pod["spec"]
        whole = spec.setdefault("securityContext", {})
        problems = []
        if whole.get("fsGroup", self._users[0]) not in self._users:
            problems.append(
                f".spec.securityContext.fsGroup: Invalid value: []int64{{{whole['fsGroup']}}}:"
                f" {whole['fsGroup']} is not an allowed group"
            )
        for number, one in enumerate(containers(spec)):
            own = one.setdefault("securityContext", {})
            user = own.get("runAsUser", whole.get("runAsUser", self._users[0]))
            where = f".containers[{number}]"
            if user not in self._users:
                problems.append(
                    f"{where}.runAsUser: Invalid value: {user}: must be in the ranges:"
                    f" [{self._users[0]}, {self._users[-1]}]"
                )
            if own.get("privileged"):
                problems.append(
                    f"{where}.privileged: Invalid value: true: Privileged containers are not"
                    " allowed"
                )
            own.setdefault("runAsUser", user)
        whole.setdefault("fsGroup", self._users[0])
        listed = ", ".join(f"provider restricted-v2: {problem}" for problem in problems)
        if not problems:
            return ""
        return forbidden(
            pod, f"unable to validate against any security context constraint: [{listed}]"
        )


class LimitRange:
    """Limits of a container: `most` that it may have, and what it gets if it states none.
    https://kubernetes.io/docs/concepts/policy/limit-range/"""

    def __init__(self, most: dict[str, str], default: dict[str, str] | None = None) -> None:
        self._most = most
        self._default = default or {}

    def __call__(self, pod: Json) -> str:
        for one in containers(pod["spec"]):
            stated = one.setdefault("resources", {})
            stated["limits"] = {**self._default, **stated.get("limits", {})}
            stated["requests"] = {**stated["limits"], **stated.get("requests", {})}
            for name, most in self._most.items():
                limit = stated["limits"].get(name)
                if limit is not None and amount(limit) > amount(most):
                    return forbidden(
                        pod,
                        f"maximum {name} usage per Container is {most}, but limit is {limit}",
                    )
        return ""


class Stated:
    """A ResourceQuota that counts these of each container, as `limits.cpu`.
    https://kubernetes.io/docs/concepts/policy/resource-quotas/"""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __call__(self, pod: Json) -> str:
        for name in self._names:
            kind, _, resource = name.partition(".")
            lacking = [
                one["name"]
                for one in containers(pod["spec"])
                if resource not in one.get("resources", {}).get(kind, {})
            ]
            if lacking:
                return forbidden(
                    pod, f"failed quota: compute: must specify {name} for: {','.join(lacking)}"
                )
        return ""


def forbidden(pod: Json, why: str) -> str:
    return f'pods "{pod["metadata"]["name"]}" is forbidden: {why}'
