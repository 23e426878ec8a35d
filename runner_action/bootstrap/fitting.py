"""How the agent gets to a machine: in the user data if it fits, else in two stages; and what to
shorten if neither works. Pure.

docs/decisions/0004-user-data.md has the figures. With the agent in its user data, a machine needs
nothing else to become a runner. So two stages are only for user data that would not fit otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runner_action import bootstrap, providers
from runner_action.agent.spec import AgentSpec
from runner_action.bundle import bundle
from runner_action.errors import InputError
from runner_action.forges import expected_registration, traits_of
from runner_action.forges.filler import filler
from runner_action.model import Deletion, LaunchJob, Run
from runner_action.naming import base_name
from runner_action.request import LaunchRequest

JIT = 1_400
"""Bytes of user data for GitHub's just-in-time configuration: 256 for its primes, the rest for ids,
URLs, and the module that restores it (`make benchmark`). They vary by some 50 with the keys, as the
compression does."""
SPARE = 64
"""Bytes by which the ids and URLs of a launch may be longer than those of `usual_spec`."""
SMALL = 100
"""A message does not mention a part of fewer bytes, or of less than a tenth of the largest part."""
AGENT = "the agent and its frame"


@dataclass(frozen=True)
class Foreseen:
    """A forecast of a launch's user data, made before anything is registered. `jit`: there is room
    for a just-in-time configuration; `stage`: the URL of the agent, if it must be downloaded."""

    jit: bool
    stage: str | None


def user_data(
    spec: AgentSpec, request: LaunchRequest, limit: int, deletion: Deletion | None = None
) -> bytes:
    """The user data, of at most `limit` bytes: for a pod a zip with the agent, for other machines a
    compressed cloud-config. Raises InputError if it does not fit."""
    assert request.cloud
    if providers.traits_of(request.cloud.provider).pods:
        packed = bootstrap.program(spec, request)
        if len(packed) > limit:
            raise InputError([too_long(spec, request, limit, deletion)])
        return packed
    whole = bootstrap.cloud_config(spec, request, deletion)
    if len(whole) <= limit:
        return whole
    stage = second_stage(request, deletion)
    staged = bootstrap.cloud_config(spec, request, deletion, stage) if stage else whole
    if len(staged) > limit:
        raise InputError([too_long(spec, request, limit, deletion)])
    return staged


def second_stage(request: LaunchRequest, deletion: Deletion | None) -> str | None:
    """The URL of the agent; None if the machines of this launch must not download it. Those that
    delete themselves must not: they could not do that without an agent, and their clouds allow user
    data several times as large as an agent."""
    if not request.agent_downloads or deletion is not None:
        return None
    return bundle().url(request.agent_downloads)


def foreseen(
    request: LaunchRequest, limit: int, architecture: str, deletion: Deletion | None
) -> Foreseen:
    """The forecast for a launch. Nothing has been looked up or registered yet, so tokens, ids and
    URLs are assumed to be of the usual length. Raises InputError if the user data would not fit in
    any way."""
    spec = usual_spec(request, architecture)
    jit = request.single and request.count == 1 and traits_of(request.forge).just_in_time
    if request.cloud and providers.traits_of(request.cloud.provider).pods:
        user_data(spec, request, limit - SPARE, deletion)
        return Foreseen(jit=jit, stage=None)
    size = len(bootstrap.cloud_config(spec, request, deletion)) + SPARE
    stage = second_stage(request, deletion)
    if size + (JIT if jit else 0) <= limit:
        return Foreseen(jit=jit, stage=None)
    if stage is None and size <= limit:
        return Foreseen(jit=False, stage=None)
    user_data(spec, request, limit - SPARE - (JIT if jit else 0), deletion)
    return Foreseen(jit=jit, stage=stage)


def usual_spec(request: LaunchRequest, architecture: str) -> AgentSpec:
    """A spec in which everything that is not known yet is random and of its usual length."""

    download, joining = expected_registration(request, architecture)
    job = (
        LaunchJob(run_id=19376284899, id=55448733021, name="launch")
        if request.restart_limit
        else None
    )
    filled = filler(10, "name")
    name = base_name(request.name, Run(derived_name=f"cml-{filled}", key=filled, title=""))
    return bootstrap.spec_of(
        request, name, joining, download, f"{request.repository.server}/api/v3", job
    )


def too_long(spec: AgentSpec, request: LaunchRequest, limit: int, deletion: Deletion | None) -> str:
    """The error message: the bytes of each large part, and which inputs to shorten, of those that
    were given."""
    assert request.cloud
    pod = providers.traits_of(request.cloud.provider).pods
    stage = second_stage(request, deletion)

    def size(spec: AgentSpec, request: LaunchRequest) -> int:
        if pod:
            return len(bootstrap.program(spec, request))
        return len(bootstrap.cloud_config(spec, request, deletion, stage))

    whole = size(spec, request)
    parts = [(whole - size(*rest), name) for name, rest in without(spec, request)]
    parts.sort(reverse=True)
    large = [(taken, name) for taken, name in parts if taken >= max(SMALL, parts[0][0] // 10)]
    sizes = [f"{name} {taken}" for taken, name in large]
    sizes.append(f"{AGENT} {whole - sum(taken for taken, _ in large)}")
    problem = (
        f"the user data would have {whole} bytes, {whole - limit} more than allowed; its parts, in"
        f" bytes: {'; '.join(sizes)}"
    )
    given = [name for _, name in large if name not in (JIT_NAME, PACKAGES_NAME)]
    names = " or ".join(given[:2])
    advice = [f"shorten {names}, or let a script download what it needs"] if names else []
    if any(name == PACKAGES_NAME for _, name in large):
        advice.append("set `docker: none` if no job needs Docker or the tools that come with it")
    if stage is None and not pod and deletion is None:
        advice.append(
            "use a release of cml-runner, or `agent-downloads`, so that the machine downloads the"
            " agent itself"
        )
    hint = "; ".join(advice) or "none of your inputs can be shortened"
    return f"{problem}. What helps: {hint}"


JIT_NAME = "the just-in-time configuration of `single`"
PACKAGES_NAME = "the installation of packages"


def without(
    spec: AgentSpec, request: LaunchRequest
) -> Iterator[tuple[str, tuple[AgentSpec, LaunchRequest]]]:
    """The name of each large input that was given, with the launch without it."""
    assert request.cloud
    cloud = request.cloud
    if cloud.startup_script:
        fewer = replace(cloud, startup_script=None)
        yield "cloud-startup-script", (spec, replace(request, cloud=fewer))
    if bootstrap.equips(request):
        yield PACKAGES_NAME, (spec, replace(request, docker=False))
    if request.checkpoint_script:
        yield "checkpoint-script", (spec, replace(request, checkpoint_script=None))
    if request.ca_certificates:
        yield "ca-certificates", (spec, replace(request, ca_certificates=None))
    if cloud.ssh_public_key:
        fewer = replace(cloud, ssh_public_key=None)
        yield "cloud-ssh-private", (spec, replace(request, cloud=fewer))
    if spec.labels:
        yield "labels", (replace(spec, labels=()), request)
    if spec.docker_volumes:
        yield "docker-volumes", (replace(spec, docker_volumes=()), request)
    if spec.jit_config:
        yield JIT_NAME, (replace(spec, jit_config=None), request)
