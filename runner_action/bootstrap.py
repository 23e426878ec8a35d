"""AgentSpec + agent + startup script -> the user data that cloud-init turns into a runner. Pure: same input, same bytes.

The unit, not the agent, ends the machine: systemd powers off when the service ends, be it well (SuccessAction) or killed
(FailureAction). Beside it stands a timer that looks at the agent's heartbeat. Nothing is installed or pulled before the runner is online.
"""

from __future__ import annotations

import ast
import base64
import gzip
import io
import json
import tokenize
import zipfile
from functools import cache
from importlib.resources import files
from typing import Any

from runner_action.agent.spec import AgentSpec
from runner_action.errors import InputError

HOME = "/var/lib/cml-runner"
AGENT_BUDGET = 12 * 1024
"""Bytes that agent, spec and frame may take of the user data, compressed; a test holds us to it."""

SERVICE = f"""[Unit]
Description=cml-runner agent
After=network-online.target
Wants=network-online.target
SuccessAction=poweroff
FailureAction=poweroff-force

[Service]
WorkingDirectory={HOME}
ExecStart=/usr/bin/python3 agent.pyz run
ExecStopPost=-/usr/bin/python3 agent.pyz cleanup
KillMode=mixed
TimeoutStopSec=100
OOMPolicy=continue
StandardOutput=journal+console
"""

WATCHDOG_SERVICE = f"""[Unit]
Description=cml-runner watchdog
FailureAction=poweroff-force

[Service]
Type=oneshot
WorkingDirectory={HOME}
ExecStart=/usr/bin/python3 agent.pyz watchdog
TimeoutStartSec=120
StandardOutput=journal+console
"""

WATCHDOG_TIMER = """[Unit]
Description=cml-runner watchdog

[Timer]
OnActiveSec=60s
OnUnitInactiveSec=30s

[Install]
WantedBy=timers.target
"""

WIPE_SERVICE = f"""[Unit]
Description=cml-runner removes the copies of its spec
After=cloud-final.service

[Service]
Type=oneshot
WorkingDirectory={HOME}
ExecStart=/usr/bin/python3 agent.pyz wipe /var/lib/cloud /run/cloud-init
"""

START = [
    ["systemctl", "daemon-reload"],
    # Enabled, so that it ends a machine that a job has restarted; the agent itself does not come back.
    ["systemctl", "enable", "--now", "cml-runner-watchdog.timer"],
    ["systemctl", "start", "--no-block", "cml-runner.service", "cml-runner-wipe.service"],
]


def user_data(spec: AgentSpec, startup_script: str | None, ssh_public_key: str | None, limit: int) -> bytes:
    """Compressed cloud-config of at most `limit` bytes. Raises InputError if the startup script does not fit."""
    config: dict[str, Any] = {
        "users": ["default", {"name": spec.job_user, "groups": ["docker"], "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True}],
        "write_files": list(_files(spec, startup_script)),
        "runcmd": START,
    }
    if ssh_public_key:
        config["ssh_authorized_keys"] = [ssh_public_key]
    # JSON is YAML, and needs no quoting rules of ours. cloud-init unpacks gzip by itself.
    packed = gzip.compress(f"#cloud-config\n{json.dumps(config)}\n".encode(), 9, mtime=0)
    if len(packed) > limit:
        over = f"the user data would be {len(packed)} bytes, {len(packed) - limit} more than the cloud takes"
        raise InputError([f"cloud-startup-script is too long: {over}; let the script download what it needs"])
    return packed


def _files(spec: AgentSpec, startup_script: str | None) -> list[dict[str, str]]:
    agent = base64.b64encode(gzip.compress(agent_zip(), 9, mtime=0)).decode()
    written = [
        {"path": f"{HOME}/agent.pyz", "encoding": "gz+b64", "content": agent},
        {"path": f"{HOME}/spec.json", "permissions": "0600", "content": spec.to_json()},
        {"path": "/etc/systemd/system/cml-runner.service", "content": SERVICE},
        {"path": "/etc/systemd/system/cml-runner-watchdog.service", "content": WATCHDOG_SERVICE},
        {"path": "/etc/systemd/system/cml-runner-watchdog.timer", "content": WATCHDOG_TIMER},
        {"path": "/etc/systemd/system/cml-runner-wipe.service", "content": WIPE_SERVICE},
    ]
    if startup_script:
        content = startup_script if startup_script.startswith("#!") else f"#!/bin/sh\n{startup_script}"
        encoded = base64.b64encode(content.encode()).decode()
        written.append({"path": f"{HOME}/startup.sh", "permissions": "0700", "encoding": "b64", "content": encoded})
    return written


@cache
def agent_zip() -> bytes:
    """The agent as a zip application. Stored, not deflated: the gzip around it sees all files as one text."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(files("runner_action.agent").iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                archive.writestr(zipfile.ZipInfo(f"agent/{file.name}"), slim(file.read_text("utf-8")))
        archive.writestr(zipfile.ZipInfo("__main__.py"), "import sys\nfrom agent.__main__ import run\nsys.exit(run())\n")
    return packed.getvalue()


def slim(source: str) -> str:
    """Python source without comments and docstrings, on the same lines, so that tracebacks stay true."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines[node.lineno - 1] = " " * node.col_offset + '""'
            lines[node.lineno : node.end_lineno] = [""] * (node.end_lineno - node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and lines[row - 1].endswith(token.string):
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines) + "\n"
