"""From the user's inputs to a plan for a cluster. Pure: no network, no clock, no client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from runner_action.errors import InputError
from runner_action.model import Place, Plan
from runner_action.providers.draft import SPOTS
from runner_action.providers.gpus import OLDER_WORDS, word_of
from runner_action.providers.kubernetes.options import Containers, options_of
from runner_action.providers.kubernetes.table import (
    ARCHITECTURES,
    CLAIM_TEMPLATE,
    CPU_SHARE,
    GENERIC_REGIONS,
    GPU_IMAGE,
    GPU_RESOURCE,
    GPU_SIZES,
    IMAGE,
    MEMORY_SHARE,
    MODELS,
    SHARED,
    SHARED_SHARES,
    SIZES,
)
from runner_action.request import CloudRequest, Spot

NATIVE = re.compile(r"(\d+(?:\.\d+)?)-(\d+)(?:\+([A-Za-z0-9][A-Za-z0-9._/-]*)(?:\*(\d+))?)?")
"""CML's form: CPUs, MB, accelerator and number."""
NO_IMAGE = (  # only for a launch: the other commands need no image
    "cloud-image is needed here: this cml-runner is not a release, so it has no image for pods;"
    " write one that was built from image/runner.Dockerfile, such as"
    " `registry.example/cml-runner:runner`"
)
ARCHITECTURE_LABEL = "kubernetes.io/arch"
KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
"""Names of labels and annotations; values of labels.
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one runner may use. `model`: the word for its GPU; `shares`: of CPUs and memory, that
    are requested."""

    cpus: float
    memory_mib: int
    resource: str = ""
    number: int = 0
    model: str = ""
    shares: tuple[float, float] = (CPU_SHARE, MEMORY_SHARE)

    @property
    def claim(self) -> str:
        """The ResourceClaimTemplate that stands for its GPUs; empty if they are a resource."""
        name = self.resource.removeprefix(CLAIM_TEMPLATE)
        return "" if name == self.resource else name

    @property
    def for_nvidia(self) -> bool:
        return self.resource.startswith("nvidia.com/") or bool(self.claim)

    def __str__(self) -> str:
        gpus = f", {self.number} × {self.model or self.resource}" if self.number else ""
        return f"{self.cpus:g} CPU, {self.memory_mib / 1024:g} GiB{gpus}"


def plan(request: CloudRequest) -> Plan:
    """The request in the cluster's terms. Raises InputError with all problems."""
    problems: list[str] = []
    words = [
        word
        for size in request.sizes
        if (word := _word(size, request.gpu)) and size_of(word, problems)
    ]
    problems += [*_label_problems(request), *template_problems(options_of(request).pod_template)]
    problems += [
        f"cloud-gpu {word}: the ResourceClaimTemplate itself says how many; leave the number out"
        for word in words
        if size_of(word).claim and size_of(word).number > 1
    ]
    problems += [*_account_problems(request), *_queue_problems(request)]
    if problems:
        raise InputError(problems)
    gpus = any(size_of(word).for_nvidia for word in words)
    own = options_of(request).containers is not Containers.KUBERNETES
    return Plan(
        places=tuple(
            dict.fromkeys(
                Place(region="" if word in GENERIC_REGIONS else word) for word in request.regions
            )
        ),
        instance_types=tuple(dict.fromkeys(words)),
        architecture=_architecture(options_of(request).node_selector),
        image=request.image or (GPU_IMAGE if gpus and own else IMAGE),
        disk_gb=request.disk_gb,
        spots=SPOTS[request.spot],
        spot_price=None,
        notes=(),
    )


def _architecture(selector: Mapping[str, str]) -> str:
    """The architecture of the nodes that a selector chooses; empty if runners have none such."""
    chosen = selector.get(ARCHITECTURE_LABEL, "amd64")
    return next((name for name, label in ARCHITECTURES.items() if label == chosen), "")


def _label_problems(request: CloudRequest) -> Iterator[str]:
    selector = options_of(request).node_selector
    if not _architecture(selector):
        yield (
            f"cloud-kubernetes-node-selector {ARCHITECTURE_LABEL}={selector[ARCHITECTURE_LABEL]}:"
            " runners need amd64 or arm64"
        )
    for key, value in selector.items():
        if wrong := _bad_label("cloud-kubernetes-node-selector", key, value):
            yield wrong
    for key in request.metadata:
        if not KEY.fullmatch(key):
            yield (
                f"cloud-metadata {key}=… is not a Kubernetes label: a key has at most 63 letters,"
                " digits, . _ -"
            )


def _account_problems(request: CloudRequest) -> Iterator[str]:
    account = request.permission_set
    if account and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", account):
        yield (
            f"cloud-permission-set {account} is not a service account; write the name of one in"
            " the namespace"
        )
    if options_of(request).containers == "kubernetes" and not account:
        yield (
            "cloud-kubernetes-containers kubernetes needs a service account that may create pods:"
            " give its name as cloud-permission-set; `cml-runner permissions kubernetes` prints the"
            " role"
        )


def _queue_problems(request: CloudRequest) -> Iterator[str]:
    """A queue chooses among its own flavors, and counts the pods of its Job only."""
    options = options_of(request)
    several = {
        "cloud-type": len(request.sizes) > 1,
        "cloud-region": len(request.regions) > 1,
        "cloud-spot: prefer": request.spot is Spot.PREFER,
    }
    names = [name for name, given in several.items() if given]
    if options.queue and options.containers == "kubernetes":
        yield (
            "cloud-kubernetes-queue admits the runner's pod only, and not the pods of its jobs,"
            " which would have the GPUs; leave out `cloud-kubernetes-containers: kubernetes`, or"
            " write `docker` there"
        )
    if options.queue and names:
        yield (
            f"cloud-kubernetes-queue takes one placement, since Kueue itself chooses among the"
            f" flavors of its queue; write one value for {', '.join(names)}, or leave it out"
        )


def _word(size: str, gpu: str | None) -> str:
    """Size and GPU as one word: `m+t4:2`."""
    own, _, written = size.partition("+")
    gpu = word_of(written or gpu or "")
    return f"{own}+{gpu}" if gpu else size


def size_of(word: str, problems: list[str] | None = None) -> Size:
    """The size for `m`, `m+t4`, `l+nvidia.com/gpu:2`, `4-16384`, `4-16384+nvidia-tesla-v100*2`.
    Without `problems` the word must be a valid one."""
    if match := NATIVE.fullmatch(word.replace(":", "*")):
        cpus, memory, gpu, number = match.groups()
        return _with_gpu(
            Size(cpus=float(cpus), memory_mib=int(memory), shares=(1.0, 1.0)),
            gpu or "",
            int(number or 1),
        )
    size, _, gpu = word.partition("+")
    gpu, _, number = gpu.replace("*", ":").partition(":")
    gpu = OLDER_WORDS.get(gpu, gpu)
    if size in SIZES and (not gpu or "/" in gpu):
        named = Size(cpus=SIZES[size][0], memory_mib=SIZES[size][1] * 1024)
        if size == SHARED:
            named = replace(named, shares=SHARED_SHARES)
        return _with_gpu(named, gpu, int(number or 1))
    sizes = GPU_SIZES.get(gpu, GPU_SIZES[""])
    if size in sizes and gpu in MODELS:
        cpus, gib, own = sizes[size]
        gpus = int(number or own)
        times = (
            gpus if size == "m" else 1
        )  # `m` is what nobody had to write: it grows with the number
        return _with_gpu(Size(cpus=cpus * times, memory_mib=gib * 1024 * times), gpu, gpus)
    if problems is not None:
        known = (
            "`shared`, `s`, `m`, `l`, `xl`, CPUs and MB as in `4-16384`, or with a GPU `m+t4`,"
            " `4-16384+nvidia.com/gpu*2`"
        )
        problems.append(f"cloud-type {word} is not a size for Kubernetes; write {known}")
    return Size(cpus=1, memory_mib=1024)


def _with_gpu(size: Size, gpu: str, number: int) -> Size:
    """The size with GPUs. `gpu`: a resource, a model, or CML's longer word for a model."""
    if not gpu:
        return size
    model = "" if "/" in gpu else re.sub(r"^nvidia-(tesla-)?", "", gpu)
    resource = gpu if "/" in gpu else GPU_RESOURCE
    return replace(size, resource=resource, number=number, model=model)


def _bad_label(name: str, key: str, value: str) -> str | None:
    if KEY.fullmatch(key) and VALUE.fullmatch(value):
        return None
    return (
        f"{name} {key}={value} is not a Kubernetes label: key and value have at most 63 letters,"
        " digits, . _ -; a domain and / may precede the key"
    )


def template_problems(text: str | None) -> list[str]:
    """The first problem of a pod template, before it is merged; empty if there is none."""
    if text is None:
        return []
    try:
        template = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f" in line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "it cannot be read"
        return [f"cloud-kubernetes-pod-template is not YAML: {why}{position}"]
    return [problem] if (problem := _shape_problem(template)) else []


def _shape_problem(template: Any) -> str:
    """Empty if the template has the shape that can be merged."""
    if not isinstance(template, Mapping):
        return (
            "cloud-kubernetes-pod-template must be a mapping with `metadata` or `spec`, or the name"
            " of a file with one"
        )
    strange = [
        str(key) for key in template if key not in ("apiVersion", "kind", "metadata", "spec")
    ]
    if strange:
        return (
            f"cloud-kubernetes-pod-template has {', '.join(strange)}; only `metadata` and `spec` of"
            " a pod are merged"
        )
    wrong = any(not isinstance(template.get(key) or {}, Mapping) for key in ("metadata", "spec"))
    spec = {} if wrong else template.get("spec") or {}
    named: Sequence[Any] = [
        entry
        for kind in ("containers", "initContainers", "volumes")
        for entry in spec.get(kind) or ()
    ]
    if wrong or any(not isinstance(entry, Mapping) or "name" not in entry for entry in named):
        return (
            "cloud-kubernetes-pod-template: `metadata` and `spec` must be mappings, and each"
            " container and volume must have a `name`, by which it is merged"
        )
    return ""


def template_of(text: str | None) -> dict[str, Any]:
    """`metadata` and `spec` of a template that has no problems."""
    template = yaml.safe_load(text) if text else {}
    return {key: template[key] for key in ("metadata", "spec") if template.get(key)}
