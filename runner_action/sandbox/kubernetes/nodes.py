"""A cluster's nodes, and which pods they have a place for, by the rules of its scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from runner_action.sandbox.kubernetes.shelf import Json

OVER = ("Succeeded", "Failed")
UNITS: dict[str, Decimal | int] = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
PLENTY: dict[str, str | int] = {"cpu": 64, "memory": "256Gi", "ephemeral-storage": "1Ti"}
UNFIT = ("Insufficient",)
"""How the reasons begin that ending other pods could cure."""


@dataclass
class Node:
    """`room`: what it has of each resource; cpu, memory and disk are plenty unless said, of
    others there is nothing."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    room: dict[str, str | int] = field(default_factory=lambda: {"nvidia.com/gpu": 8})
    taints: list[dict[str, str]] = field(default_factory=list)
    claims: set[str] = field(default_factory=set)
    """ResourceClaimTemplates whose claims its devices can meet."""

    def __post_init__(self) -> None:
        self.labels = {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "kubernetes.io/hostname": self.name,
            **self.labels,
        }
        self.room = {**PLENTY, **self.room}


def against(node: Node, pod: Json, pods: list[Json]) -> list[str]:
    """Why not there. As with the real one taints speak before labels, and labels before room."""
    spec = pod["spec"]
    for taint in node.taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not any(
            tolerates(one, taint) for one in spec.get("tolerations", ())
        ):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    terms = (
        spec.get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
        .get("nodeSelectorTerms")
    )
    chosen = all(
        node.labels.get(key) == value for key, value in spec.get("nodeSelector", {}).items()
    )
    if not chosen or (terms is not None and not any(meets(term, node) for term in terms)):
        return ["node(s) didn't match Pod's node affinity/selector"]
    claimed = {one["resourceClaimTemplateName"] for one in spec.get("resourceClaims", ())}
    if claimed - node.claims:
        return ["cannot allocate all claims"]
    others = [
        one
        for one in pods
        if one["spec"].get("nodeName") == node.name and one["status"]["phase"] not in OVER
    ]
    used: Counter[str] = Counter()
    for one in others:
        used.update(known(one))
    return [
        f"Insufficient {name}"
        for name, asked in known(pod).items()
        if asked > amount(node.room.get(name, 0)) - used[name]
    ]


def unplaced(unfit: list[list[str]]) -> str:
    """The scheduler's sentence about a pod, from each node's reasons."""
    all_of_them = f"0/{len(unfit)} nodes are available"
    said = Counter(reason for reasons in unfit for reason in reasons)
    curable = sum(reasons[0].startswith(UNFIT) for reasons in unfit)
    helps = {
        "No preemption victims found for incoming pod": curable,
        "Preemption is not helpful for scheduling": len(unfit) - curable,
    }
    return (
        f"{all_of_them}: {counted(said)}. preemption: {all_of_them}: {counted(helps)}."
        if unfit
        else "no nodes available to schedule pods"
    )


def counted(reasons: dict[str, int] | Counter[str]) -> str:
    return ", ".join(sorted(f"{times} {reason}" for reason, times in reasons.items() if times))


def amount(quantity: str | int) -> Decimal:
    text = str(quantity)
    number = text.rstrip("mkMGTi")
    return Decimal(number) * UNITS[text[len(number) :]]


def containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def lasting(container: Json, spec: Json) -> bool:
    """Not so an initial container, unless it is what is called a native sidecar."""
    return container in spec["containers"] or container.get("restartPolicy") == "Always"


def needs(spec: Json) -> dict[str, Decimal]:
    """What has to be free of each resource: of all that lasts together, or of an initial
    container beside the sidecars before it."""
    beside: Counter[str] = Counter()
    most: dict[str, Decimal] = {}
    for one in containers(spec):
        asked = {
            name: amount(value)
            for name, value in one.get("resources", {}).get("requests", {}).items()
        }
        if lasting(one, spec):
            beside.update(asked)
        for name in {*asked, *beside}:
            peak = Decimal(beside[name]) + (
                0 if lasting(one, spec) else asked.get(name, Decimal(0))
            )
            most[name] = max(most.get(name, Decimal(0)), peak)
    return most


KNOWN: dict[str, dict[str, Decimal]] = {}


def known(pod: Json) -> dict[str, Decimal]:
    """The same of a pod, whose needs never change."""
    number = pod["metadata"]["uid"]
    if number not in KNOWN:
        KNOWN[number] = needs(pod["spec"])
    return KNOWN[number]


def tolerates(toleration: Json, taint: dict[str, str]) -> bool:
    key = toleration.get("key")
    same = toleration.get("value", "") == taint.get("value", "")
    fits = key == taint["key"] if key else toleration.get("operator") == "Exists"
    return (
        fits
        and toleration.get("effect", taint["effect"]) == taint["effect"]
        and (same or toleration.get("operator") == "Exists")
    )


def meets(term: Json, node: Node) -> bool:
    """All of its expressions; one that has none is met by nobody."""
    wanted = [(one, node.labels) for one in term.get("matchExpressions", ())]
    wanted += [(one, {"metadata.name": node.name}) for one in term.get("matchFields", ())]
    return bool(wanted) and all(
        holds(one["operator"], labels.get(one["key"]), one.get("values", ()))
        for one, labels in wanted
    )


def holds(operator: str, value: str | None, values: Iterable[str]) -> bool:
    """Of a label that is there or None. A label that is not there is in no list, and so `NotIn`
    any."""
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) is (operator == "Exists")
    return (value in tuple(values)) is (operator == "In")
