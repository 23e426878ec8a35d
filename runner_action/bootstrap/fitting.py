"""Which way the agent goes to a machine: whole in the user data where that fits, else in two
stages; and what to shorten if neither does. Pure.

docs/decisions/0004-user-data.md has the figures. A machine needs nothing but its user data to
become a runner as long as the agent is in it, so the second stage is for user data that would not
fit otherwise.
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
from runner_action.model import Deletion, LaunchJob
from runner_action.request import LaunchRequest

JIT = 1_350
"""Bytes of user data that a just-in-time configuration of GitHub's takes: 256 of them its
primes, the rest ids, addresses, and the module that puts it together (`make benchmark`)."""
SPARE = 64
"""Bytes by which ids and addresses of a launch may differ from those of `Foreseen`."""
SMALL = 100
"""Bytes below which a part is not worth a word in a message; nor is a tenth of the largest."""
AGENT = "the agent and its frame"


@dataclass(frozen=True)
class Foreseen:
    """How the user data of a launch will be, before anything is registered. `jit`: there is room
    for a just-in-time configuration; `stage`: the address of the agent, if it has to be fetched."""

    jit: bool
    stage: str | None


def user_data(
    spec: AgentSpec, request: LaunchRequest, limit: int, deletion: Deletion | None = None
) -> bytes:
    """What the machine gets, of at most `limit` bytes: a pod the agent as a program, any other a
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
    """The address of the agent, where this launch may have it fetched. Not on clouds whose
    machines delete themselves: they take several times of what an agent needs, and could not
    delete themselves without one."""
    return (
        bundle().url(request.agent_downloads)
        if request.agent_downloads and deletion is None
        else None
    )


def foreseen(
    request: LaunchRequest, limit: int, architecture: str, deletion: Deletion | None
) -> Foreseen:
    """Raises InputError if it would not fit in any way. Nothing has been asked for yet: what
    GitHub, GitLab and the job will tell is of its usual length."""
    spec = usual_spec(request, architecture)
    jit = request.single and request.count == 1 and traits_of(request.forge).just_in_time
    if request.cloud and providers.traits_of(request.cloud.provider).pods:
        user_data(spec, request, limit - SPARE, deletion)
        return Foreseen(jit=jit, stage=None)
    size, stage = (
        len(bootstrap.cloud_config(spec, request, deletion)) + SPARE,
        second_stage(request, deletion),
    )
    if size + (JIT if jit else 0) <= limit:
        return Foreseen(jit=jit, stage=None)
    if stage is None and size <= limit:
        return Foreseen(jit=False, stage=None)
    user_data(spec, request, limit - SPARE - (JIT if jit else 0), deletion)
    return Foreseen(jit=jit, stage=stage)


def usual_spec(request: LaunchRequest, architecture: str) -> AgentSpec:
    """With everything that is not known yet at its usual length, and as random."""

    download, joining = expected_registration(request, architecture)
    job = (
        LaunchJob(run_id=19376284899, id=55448733021, name="launch")
        if request.restart_limit
        else None
    )
    name = request.name or f"cml-{filler(10, 'name')}"
    return bootstrap.spec_of(
        request, name, joining, download, f"{request.repository.server}/api/v3", job
    )


def too_long(spec: AgentSpec, request: LaunchRequest, limit: int, deletion: Deletion | None) -> str:
    """What to shorten, by the bytes that each thing given takes of the whole; never a thing that
    was not given."""
    assert request.cloud
    pod = providers.traits_of(request.cloud.provider).pods
    stage = second_stage(request, deletion)

    def size(spec: AgentSpec, request: LaunchRequest) -> int:
        return len(
            bootstrap.program(spec, request)
            if pod
            else bootstrap.cloud_config(spec, request, deletion, stage)
        )

    whole = size(spec, request)
    takes = sorted(
        ((whole - size(*less), name) for name, less in without(spec, request)), reverse=True
    )
    large = [(taken, name) for taken, name in takes if taken >= max(SMALL, takes[0][0] // 10)]
    parts = [f"{name} {taken}" for taken, name in large]
    told = "; ".join([*parts, f"{AGENT} {whole - sum(taken for taken, _ in large)}"])
    over = (
        f"the user data would be {whole} bytes, {whole - limit} more than there is room for; of"
        f" these, in bytes: {told}"
    )
    names = " or ".join(name for _, name in large[:2] if name != JIT_NAME)
    advice = [f"shorten {names}, or let a script download what it needs"] if names else []
    if stage is None and not pod and deletion is None:
        advice.append(
            "use a release of cml-runner, or `agent-downloads`, so that the machine fetches the"
            " agent itself"
        )
    return f"{over}. What helps: {'; '.join(advice) or 'nothing that you gave can be shortened'}"


JIT_NAME = "the just-in-time configuration of `single`"


def without(
    spec: AgentSpec, request: LaunchRequest
) -> Iterator[tuple[str, tuple[AgentSpec, LaunchRequest]]]:
    """Each thing that was given, and the launch without it."""
    assert request.cloud
    cloud = request.cloud
    if cloud.startup_script:
        yield (
            "cloud-startup-script",
            (
                spec,
                replace(request, cloud=replace(cloud, startup_script=None)),
            ),
        )
    if request.checkpoint_script:
        yield "checkpoint-script", (spec, replace(request, checkpoint_script=None))
    if request.ca_certificates:
        yield "ca-certificates", (spec, replace(request, ca_certificates=None))
    if cloud.ssh_public_key:
        yield (
            "cloud-ssh-private",
            (
                spec,
                replace(request, cloud=replace(cloud, ssh_public_key=None)),
            ),
        )
    if spec.labels:
        yield "labels", (replace(spec, labels=()), request)
    if spec.docker_volumes:
        yield "docker-volumes", (replace(spec, docker_volumes=()), request)
    if spec.jit_config:
        yield JIT_NAME, (replace(spec, jit_config=None), request)
