"""On which nodes a pod may run: selector, tolerations and affinity. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from runner_action.providers.kubernetes import table
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.providers.kubernetes.plan import ARCHITECTURE_LABEL

Body = dict[str, Any]
REGION_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")


def selector(placement: PodPlacement) -> dict[str, str]:
    """The user's labels. The value `infer` stands for the GPU's model; without a GPU the label is
    left out, as in CML."""
    given = dict(placement.node_selector)
    for key in [key for key, value in given.items() if value == "infer"]:
        values = models(placement.size.model).get(key) or models(placement.size.model).get(
            table.OLD_LABEL, ()
        )
        given |= {key: values[0]} if values else {}
        if not values:
            del given[key]
    return {
        "kubernetes.io/os": "linux",
        ARCHITECTURE_LABEL: table.ARCHITECTURES[placement.architecture],
        **given,
    }


def models(word: str) -> dict[str, tuple[str, ...]]:
    """By label, the values that mean this GPU. An unknown model is used as the value itself."""
    if not word:
        return {}
    names, karpenter, products = table.MODELS.get(word, ((word,), word, (word,)))
    values = (
        (karpenter,),
        (karpenter,),
        names,
        (*names, karpenter),
        (karpenter.upper(),),
        (karpenter.upper(),),
        products,
        names,
    )
    return dict(zip(table.MODEL_LABELS, values, strict=True))


def tolerations(placement: PodPlacement) -> list[Body]:
    result = [toleration(text) for text in placement.tolerations]
    if placement.spot:
        result += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in table.SPOT_TAINTS.items()
        ]
    if placement.size.number:
        own = [] if placement.size.claim else [placement.size.resource]
        keys = dict.fromkeys([*own, *table.GPU_TAINTS])
        result += [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]
    return result


def toleration(text: str) -> Body:
    """`key=value:Effect`, `key:Effect`, `key`."""
    taint, _, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    how = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **how, **({"effect": effect} if effect else {})}


def required(placement: PodPlacement) -> Body:
    """The pod's affinity; empty if any node will do."""
    terms = affinity(placement)
    if not terms:
        return {}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"nodeAffinity": rule}


def affinity(placement: PodPlacement) -> list[Body]:
    """Terms, one of which must hold: every combination of the labels that mean spot, the GPU's
    model and the region."""
    chosen = set(placement.node_selector)
    spots: Sequence[Body | None] = (
        [
            {"key": key, "operator": "In", "values": [value]}
            for key, value in table.SPOT_LABELS.items()
        ]
        if placement.spot
        else [None]
    )
    # Labels of the user's own say which nodes.
    known = {} if chosen - {ARCHITECTURE_LABEL} else models(placement.size.model)
    gpus: Sequence[Body | None] = [
        {"key": key, "operator": "In", "values": list(values)} for key, values in known.items()
    ] or [None]
    places: Sequence[Body | None] = (
        [{"key": key, "operator": "In", "values": [placement.region]} for key in REGION_LABELS]
        if placement.region
        else [None]
    )
    terms = [
        [requirement for requirement in term if requirement]
        for term in product(spots, gpus, places)
    ]
    return [{"matchExpressions": term} for term in terms if term]
