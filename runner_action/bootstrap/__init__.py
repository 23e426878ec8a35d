"""AgentSpec + agent + the user's scripts -> the user data that cloud-init turns into a runner.
Pure: same input, same bytes.

The unit, not the agent, ends the machine: systemd powers off when the service ends, be it well
(SuccessAction) or not (OnFailure); an agent that was killed is started again once, and finds its
runner alive (KillMode=process). Beside it stands a timer that looks at the agent's heartbeat. Where
a machine that is off still costs, every power-off waits for its deletion (`units.py`). Nothing is
installed before the runner is online, and nothing fetched before its agent runs but that agent,
where the user data has no room for it (`fitting.py`).
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
from runner_action.bootstrap.slim import keywords, slim
from runner_action.bootstrap.units import boot_script, units
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
AGENT_BUDGET = 16 * 1024 - 256
"""Bytes that agent, spec and frame may take of a user data on AWS, which takes 16 KiB: a plain
launch needs nothing else. A test holds us to it. What does not fit beside them has its agent
fetched (`fitting`)."""

POD_ENTRY = (
    "import os, sys\nfrom agent.pod import main\nsys.exit(main(sys.argv[1:], dict(os.environ)))\n"
)
POD_PROGRAM = "/run/cml-runner/program"
"""Where a pod has the agent, and the certificates that it trusts: nothing there can be written
(`providers/kubernetes/requests.py`)."""
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

INSTANCE = "@instance@"
"""Stands in a runner's name for the end of the instance's id, where several machines have the
same user data."""
NAMED = f".replace('{INSTANCE}',os.environ['INSTANCE_ID'][-{ID_END}:])"
"""cloud-init tells `bootcmd` the instance's id (cc_bootcmd)."""


def spec_of(
    request: LaunchRequest,
    name: str,
    joining: Registration,
    download: Download,
    api_url: str,
    launch_job: LaunchJob | None,
) -> AgentSpec:
    """What the machine gets to know. Of the user's tokens only the one for restarting, and only
    when that is on."""

    def plain(secret: Secret | None) -> str | None:
        return secret.reveal() if secret else None

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
        confined=request.cloud is not None
        and not request.job_sudo
        and not traits_of(request.cloud.provider).pods,
        environment=dict(request.environment),
        download_token=plain(download.token),
        jit_config=plain(joining.jit_config),
        registration_token=plain(joining.token),
        removal_token=plain(joining.removal_token),
        api_token=plain(request.restart_token),
        runner_token=plain(joining.runner_token),
        docker_volumes=request.docker_volumes,
        options=joining_options(request, download),
        runner_id=joining.runner_id,
    )


MONTH = 30 * 86400


def joining_options(request: LaunchRequest, download: Download) -> tuple[str, ...]:
    """What `config.sh` of actions/runner is told of a runner besides its name and labels."""
    group = ("--runnergroup", request.runner_group) if request.runner_group else ()
    labels = () if request.default_labels else ("--no-default-labels",)
    # A runner of an exact version stays as it is, unless it may live until GitHub has no more jobs
    # for it.
    fixed = (
        ("--disableupdate",)
        if download.fixed and (request.max_lifetime or MONTH + 1) <= MONTH
        else ()
    )
    return (*group, *labels, *fixed)


def program(spec: AgentSpec, request: LaunchRequest) -> bytes:
    """A zip that Python runs (`agent/pod.py`): agent, spec and the user's scripts, for a pod's
    first container, which parts them."""
    assert request.cloud
    ours = CERTIFICATES if request.ca_certificates else ()
    trusting = {
        **spec.environment,
        **{name: f"{POD_PROGRAM}/ca.pem" for name in ours if name in spec.environment},
    }
    scripts = {
        "startup.sh": request.cloud.startup_script,
        "checkpoint.sh": request.checkpoint_script,
    }
    found = {f"agent/{name}": text for name, text in agent_files(spec, deletes=False).items()}
    found |= {"__main__.py": POD_ENTRY, "spec.json": replace(spec, environment=trusting).to_json()}
    found |= {name: runnable(script) for name, script in scripts.items() if script}
    found |= {"ca.pem": request.ca_certificates} if request.ca_certificates else {}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in found.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def cloud_config(
    spec: AgentSpec,
    request: LaunchRequest,
    deletion: Deletion | None = None,
    stage: str | None = None,
) -> bytes:
    """A compressed cloud-config. `stage`: the address from which the machine fetches the agent;
    None: the agent is in it."""
    assert request.cloud
    # Who may use Docker can make themselves root by it.
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
        # By both names: cloud-init before 22.3 knows only the second, later ones warn of it and
        # take the first.
        # https://docs.cloud-init.io/en/latest/reference/modules.html#ca-certificates
        config["ca_certs"] = config["ca-certs"] = {"trusted": [request.ca_certificates]}
    # JSON is YAML, and needs no quoting rules of ours. cloud-init unpacks gzip by itself.
    return zipped(f"#cloud-config\n{json.dumps(config)}\n", packed)


def zipped(text: str, packed: str) -> bytes:
    """As gzip, with codes of its own for the part of the text that is packed already: 150 bytes
    less than in one go."""
    made = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1)
    parts = [
        made.compress(part.encode()) + made.flush(zlib.Z_BLOCK) for part in text.partition(packed)
    ]
    return b"".join(parts) + made.flush()


def packed_files(
    spec: AgentSpec, request: LaunchRequest, deletion: Deletion | None, stage: str | None
) -> bytes:
    """All that our machine adds to its image: agent, spec, units and the user's scripts. Root's
    alone."""
    assert request.cloud
    home = HOME[1:]
    scripts = {
        "startup.sh": request.cloud.startup_script,
        "checkpoint.sh": request.checkpoint_script,
    }
    jit = packed_jit(spec.jit_config) if spec.jit_config else None
    agent = (
        first_stage(stage)
        if stage
        else whole_agent(spec, deletes=deletion is not None, jit=jit is not None)
    )
    found = {f"{home}/{name}": text for name, text in agent.items()}
    has_script = bool(request.cloud.startup_script)
    made = units(
        traits_of(request.cloud.provider), has_script=has_script, deletes=deletion is not None
    )
    found |= {f"etc/systemd/system/{name}": text for name, text in made.items()}
    found |= {f"{home}/{name}": runnable(script) for name, script in scripts.items() if script}
    found[f"{home}/spec.json"] = spec.to_json() if jit is None else with_jit(spec, jit)
    if deletion:
        found[f"{home}/deletion.json"] = json.dumps(
            {
                **deletion.facts,
                **({"key": json.loads(deletion.key.reveal())} if deletion.key else {}),
            }
        )
    return bz2.compress(
        "\0".join(part for pair in found.items() for part in pair).encode(), 9
    )  # JSON would escape line ends


def with_jit(spec: AgentSpec, parts: Mapping[str, Any]) -> str:
    """The spec as JSON with its just-in-time configuration in parts, which `AgentSpec.from_json`
    puts together."""
    told = json.loads(replace(spec, jit_config=None).to_json())
    return json.dumps({**told, "jit": parts}, separators=(",", ":"))


def first_stage(url: str) -> dict[str, str]:
    """What fetches the agent, and what it believes."""
    source = files("runner_action.agent").joinpath("stage.py").read_text("utf-8")
    return {
        "agent.py": slim(source, keywords([source])),
        "stage.json": json.dumps({"url": url, "sha256": bundle().sha256}),
    }


def whole_agent(spec: AgentSpec, *, deletes: bool, jit: bool) -> dict[str, str]:
    found = agent_files(spec, deletes)
    return {f"agent/{name}": text for name, text in found.items() if jit or name != "jit.py"}


def runnable(script: str) -> str:
    return script if script.startswith("#!") else f"#!/bin/sh\n{script}"


def agent_files(spec: AgentSpec, deletes: bool) -> dict[str, str]:
    """The agent's modules: of those for clouds, forges and tokens only what this machine needs,
    and none that only a local machine uses."""
    return _agent_files(spec.cloud, spec.forge, module_of(spec), deletes, spec.confined)


@cache
def _agent_files(
    cloud: str, forge: str, member: str, deletes: bool, confined: bool
) -> dict[str, str]:
    left_out = {
        "guard.py",
        "stage.py",
        *([] if deletes else ["ending.py"]),
        *([] if confined else ["wall.py"]),
        *([] if member.endswith("_token") else ["restart.py"]),
        *([] if cloud and traits_of(ProviderName(cloud)).pods else ["pod.py", "pod_guard.py"]),
        *(f"{name}.py" for name in CLOUDS if name != cloud),
        *(
            {f"{name}{by}.py" for name in ForgeName for by in ("", "_token", "_removal")}
            - {f"{forge}.py", f"{member}.py"}
        ),
    }
    modules = sorted(files("runner_action.agent").iterdir(), key=lambda file: file.name)
    found = {file.name: file.read_text("utf-8") for file in modules if file.name.endswith(".py")}
    written = keywords(found.values())
    return {name: slim(text, written) for name, text in found.items() if name not in left_out}
