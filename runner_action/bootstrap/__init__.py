"""Builds the user data by which cloud-init turns a machine into a runner, from an AgentSpec, the
agent and the user's scripts. Pure: the same input gives the same bytes.

The agent does not end the machine, its unit does: systemd powers off when the service ends, in
success (SuccessAction) or failure (OnFailure). An agent that was killed is started again once, and
its runner is still alive (KillMode=process). A timer checks the agent's heartbeat. Where a machine
that is powered off still costs money, each power-off waits until it is deleted (`units.py`).
Nothing is installed before the runner is online, and nothing is downloaded before the agent runs,
except for the agent itself where the user data has no room for it (`fitting.py`).
"""

from __future__ import annotations

import base64
import bz2
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from runner_action.agent.forge import module_of
from runner_action.agent.metadata import CLOUDS
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap.jit import packed as packed_jit
from runner_action.bootstrap.slim import keywords, own_names, slim
from runner_action.bootstrap.units import boot_script, equip_script, units
from runner_action.bundle import bundle
from runner_action.model import (
    ID_END,
    Deletion,
    Download,
    ForgeName,
    LaunchJob,
    ProviderName,
    Registration,
    Secret,
)
from runner_action.providers import traits_of
from runner_action.request import LaunchRequest

HOME = "/var/lib/cml-runner"
WITH_TOKEN = ("inheriting.py", "plan.py", "restart.py", "restarting.py", "tokens.py")
"""Modules of the agent for a machine with an API token."""
AGENT_BUDGET = 16 * 1024 - 128
"""Bytes of user data for agent, spec and the files around them, which is all that a plain launch
needs; AWS allows 16 KiB. A test checks that. If the rest of a launch does not fit as well, its
machine downloads the agent (`fitting`)."""

POD_ENTRY = (
    "import os, sys\nfrom agent.pod import main\nsys.exit(main(sys.argv[1:], dict(os.environ)))\n"
)
POD_PROGRAM = "/run/cml-runner/program"
"""The read-only folder of a pod with the agent and the certificates that it trusts
(`providers/kubernetes/requests.py`)."""
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

INSTANCE = "@instance@"
"""A placeholder in a runner's name for the end of the instance's id, where several machines have
the same user data."""
NAMED = f".replace('{INSTANCE}',os.environ['INSTANCE_ID'][-{ID_END}:])"
"""Replaces it: cloud-init passes the instance's id to `bootcmd` (cc_bootcmd)."""


def spec_of(
    request: LaunchRequest,
    name: str,
    joining: Registration,
    download: Download,
    api_url: str,
    launch_job: LaunchJob | None,
) -> AgentSpec:
    """The spec for a machine. It has only one of the user's tokens, `restart-token`, if given."""
    pods = request.cloud is not None and traits_of(request.cloud.provider).pods
    return AgentSpec(
        name=name,
        forge=request.forge.value,
        repository_url=request.repository.url,
        api_url=api_url,
        labels=request.labels,
        idle_timeout=request.idle_timeout,
        first_job_timeout=request.first_job_timeout,
        max_lifetime=request.max_lifetime,
        start_timeout=request.start_timeout,
        single=request.single,
        runner_url=download.url,
        runner_sha256=download.sha256,
        cloud=request.cloud.provider.value if request.cloud else "",
        restart_limit=request.restart_limit,
        launch_run=launch_job.run_id if launch_job else None,
        launch_job=launch_job.id if launch_job else None,
        launch_job_name=launch_job.name if launch_job else "",
        launch_project=launch_job.project if launch_job else "",
        close_metadata=request.cloud is not None and not request.cloud.permission_set,
        confined=request.cloud is not None and not request.job_sudo and not pods,
        environment=dict(request.environment),
        download_token=plain(download.token),
        jit_config=plain(joining.jit_config),
        registration_token=plain(joining.token),
        removal_token=plain(joining.removal_token),
        api_token=plain(request.restart_token),
        runner_token=plain(joining.runner_token),
        docker=installs_docker(request),
        docker_volumes=request.docker_volumes,
        privileged=request.docker_privileged,
        executor="" if request.executor == "auto" else request.executor,
        keep=request.keep_workspace,
        options=joining_options(request, download),
        pre_build_script=joining.before_jobs,
        runner_id=joining.runner_id,
    )


def plain(secret: Secret | None) -> str | None:
    return secret.reveal() if secret else None


MONTH = 30 * 86400
"""GitHub gives no jobs to a runner that has not been updated for 30 days.
https://docs.github.com/en/actions/reference/runners/self-hosted-runners"""


def joining_options(request: LaunchRequest, download: Download) -> tuple[str, ...]:
    """Options of a runner for `config.sh` of actions/runner, besides its name and labels."""
    group = ("--runnergroup", request.runner_group) if request.runner_group else ()
    labels = () if request.default_labels else ("--no-default-labels",)
    # A runner of an exact version is not updated, unless it may live so long that GitHub would give
    # it no more jobs.
    short_lived = request.max_lifetime and request.max_lifetime <= MONTH
    fixed = ("--disableupdate",) if download.fixed and short_lived else ()
    return (*group, *labels, *fixed)


def program(spec: AgentSpec, request: LaunchRequest) -> bytes:
    """A zip that Python can run (`agent/pod.py`), with agent, spec and the user's scripts. A pod's
    first container unpacks it."""
    environment = dict(spec.environment)
    if request.ca_certificates:
        for name in environment.keys() & set(CERTIFICATES):
            environment[name] = f"{POD_PROGRAM}/ca.pem"
    modules = agent_files(spec, checkpoint=bool(request.checkpoint_script))
    texts = {f"agent/{name}": text for name, text in modules.items()}
    texts["__main__.py"] = POD_ENTRY
    texts["spec.json"] = replace(spec, environment=environment).to_json()
    texts |= scripts_of(request)
    if request.ca_certificates:
        texts["ca.pem"] = request.ca_certificates
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def equips(request: LaunchRequest) -> bool:
    """Whether the machine installs what jobs expect. A pod's image is as it is."""
    cloud = request.cloud
    return request.docker and cloud is not None and not traits_of(cloud.provider).pods


def installs_docker(request: LaunchRequest) -> bool:
    """Whether the machine makes sure of Docker. Jobs that must not become root have none."""
    return equips(request) and request.job_sudo


def scripts_of(request: LaunchRequest) -> dict[str, str]:
    """The machine's scripts by file name: the one that installs packages, and the user's."""
    assert request.cloud
    packages = equip_script(own_image=request.cloud.image is not None, docker=request.job_sudo)
    scripts = {
        "equip.sh": packages if equips(request) else None,
        "startup.sh": request.cloud.startup_script,
        "checkpoint.sh": request.checkpoint_script,
    }
    return {name: runnable(script) for name, script in scripts.items() if script}


def cloud_config(
    spec: AgentSpec,
    request: LaunchRequest,
    deletion: Deletion | None = None,
    stage: str | None = None,
) -> bytes:
    """A compressed cloud-config. `stage`: the URL from which the machine downloads the agent; None:
    the agent is in the cloud-config."""
    assert request.cloud
    # Whoever may use Docker can become root.
    root = {"sudo": "ALL=(ALL) NOPASSWD:ALL", "groups": ["docker"]} if request.job_sudo else {}
    user = {"name": spec.job_user, "shell": "/bin/bash", "lock_passwd": True, **root}
    packed = base64.b64encode(packed_files(spec, request, deletion, stage)).decode()
    config: dict[str, Any] = {
        "users": ["default", user],
        "bootcmd": [boot_script(packed, NAMED if INSTANCE in spec.name else "")],
    }
    if request.cloud.ssh_public_key:
        config["ssh_authorized_keys"] = [request.cloud.ssh_public_key]
    if request.ca_certificates:
        # Under both names: cloud-init before 22.3 knows only the second; later versions warn about
        # it and use the first.
        # https://docs.cloud-init.io/en/latest/reference/modules.html#ca-certificates
        config["ca_certs"] = config["ca-certs"] = {"trusted": [request.ca_certificates]}
    # JSON is valid YAML, and needs no quoting. cloud-init unpacks gzip by itself.
    return zipped(f"#cloud-config\n{json.dumps(config)}\n", packed)


def zipped(text: str, packed: str) -> bytes:
    """The text as gzip. `packed`, the part of it that is already compressed, is a deflate block of
    its own, which saves 150 bytes."""
    gzip = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1)
    blocks = [
        gzip.compress(part.encode()) + gzip.flush(zlib.Z_BLOCK) for part in text.partition(packed)
    ]
    return b"".join(blocks) + gzip.flush()


def packed_files(
    spec: AgentSpec, request: LaunchRequest, deletion: Deletion | None, stage: str | None
) -> bytes:
    """All files that the launch adds to the machine's image: agent, spec, units and the user's
    scripts. Only root may read them."""
    assert request.cloud
    home = HOME[1:]
    deletes = deletion is not None
    jit = packed_jit(spec.jit_config) if spec.jit_config else None
    saves = bool(request.checkpoint_script)
    whole = agent_files(spec, deletes=deletes, jit=jit is not None, checkpoint=saves)
    agent = first_stage(stage) if stage else {f"agent/{name}": whole[name] for name in whole}
    texts = {f"{home}/{name}": text for name, text in agent.items()}
    has_script = bool(request.cloud.startup_script)
    for name, text in units(request.cloud.provider, has_script=has_script, deletes=deletes).items():
        texts[f"etc/systemd/system/{name}"] = text
    texts |= {f"{home}/{name}": script for name, script in scripts_of(request).items()}
    texts[f"{home}/spec.json"] = spec.to_json() if jit is None else with_jit(spec, jit)
    if deletion:
        key = {"key": json.loads(deletion.key.reveal())} if deletion.key else {}
        texts[f"{home}/deletion.json"] = json.dumps({**deletion.facts, **key})
    # Not as JSON, which would escape the line ends.
    return bz2.compress("\0".join(part for pair in texts.items() for part in pair).encode(), 9)


def with_jit(spec: AgentSpec, parts: Mapping[str, Any]) -> str:
    """The spec as JSON, with a packed just-in-time configuration, which `AgentSpec.from_json`
    restores."""
    fields = json.loads(replace(spec, jit_config=None).to_json())
    return json.dumps({**fields, "jit": parts}, separators=(",", ":"))


def first_stage(url: str) -> dict[str, str]:
    """The program that downloads the agent, and the checksum that it expects."""
    source = files("runner_action.agent").joinpath("stage.py").read_text("utf-8")
    return {
        "agent.py": slim(source, keywords([source])),
        "stage.json": json.dumps({"url": url, "sha256": bundle().sha256}),
    }


def runnable(script: str) -> str:
    """The script with a shebang."""
    return script if script.startswith("#!") else f"#!/bin/sh\n{script}"


def agent_files(
    spec: AgentSpec, *, deletes: bool = False, jit: bool = False, checkpoint: bool = False
) -> dict[str, str]:
    """The agent's modules, minified: only those that this machine needs for its cloud, forge and
    token, and none that only a local machine uses. `deletes`: it must delete itself; `jit`: its
    just-in-time configuration is packed; `checkpoint`: it has a checkpoint script."""
    pods = bool(spec.cloud) and traits_of(ProviderName(spec.cloud)).pods
    member = module_of(spec)
    left_out = {
        "guard.py",
        "stage.py",
        *([] if deletes else ["ending.py"]),
        *([] if jit else ["jit.py"]),
        *([] if checkpoint else ["checkpoint.py"]),
        *([] if spec.confined else ["wall.py"]),
        *([] if pods or member.endswith("_token") else WITH_TOKEN),
        *([] if pods else ["kept.py", "pod.py", "pod_guard.py"]),
        *(f"{name}.py" for name in CLOUDS if name != spec.cloud),
        *(
            {f"{name}{by}.py" for name in ForgeName for by in ("", "_token", "_removal")}
            - {f"{spec.forge}.py", f"{member}.py"}
        ),
    }
    return _minified(frozenset(left_out))


@cache
def _minified(left_out: frozenset[str]) -> dict[str, str]:
    """All modules but those, minified."""
    modules = sorted(files("runner_action.agent").iterdir(), key=lambda file: file.name)
    sources = [file for file in modules if file.name.endswith(".py")]
    texts = {file.name: file.read_text("utf-8") for file in sources if file.name not in left_out}
    by_name = keywords(texts.values())
    own = own_names([*texts.values(), POD_ENTRY])
    return {name: slim(text, by_name, own) for name, text in texts.items()}
