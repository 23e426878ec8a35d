"""Packs the stand-in for actions/runner in the form of its release."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from importlib.resources import files

VERSION = "2.336.0"

CONFIG = """#!/bin/bash
cd "$(dirname "$0")"
if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then echo "Must not run with sudo"; exit 1; fi
if [ "$1" == "remove" ]; then ./bin/Runner.Listener "$@"; else ./bin/Runner.Listener configure "$@"; fi
"""  # noqa: E501
RUN = """#!/bin/bash
cd "$(dirname "$0")"
if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then echo "Must not run interactively with sudo"; exit 1; fi
[ -n "$RUNNER_MANUALLY_TRAP_SIG" ] && { set -m; trap 'kill -INT -$PID' INT TERM; }
while :; do
  ./bin/Runner.Listener run "$@" &
  PID=$!
  wait $PID; code=$?
  while kill -0 $PID 2>/dev/null; do wait $PID; code=$?; done
  case $code in
    0) echo "Runner listener exit with 0 return code, stop the service, no retry needed."; exit 0 ;;
    1) echo "Runner listener exit with terminated error, stop the service, no retry needed."; exit 0 ;;
    2) echo "Runner listener exit with retryable error, re-launch runner in 5 seconds."; sleep 5 ;;
    3|4) echo "Runner listener exit because of updating, re-launch runner after successful update"; sleep 1 ;;
    5) echo "Runner listener exit with Session Conflict error, stop the service, no retry needed."; exit 0 ;;
    7) [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" == 1 ] &&
       { echo "Runner listener exit with deprecated version exit code: 7."; echo "Exiting runner..."; exit 7; }
       echo "Exiting with unknown error code: $code"; exit 0 ;;
    *) echo "Exiting with unknown error code: $code"; exit 0 ;;
  esac
done
"""  # noqa: E501


@dataclass(frozen=True)
class Archive:
    content: bytes
    sha256: str


def tarball() -> Archive:
    """The release archive: config.sh, run.sh, bin/Runner.Listener and bin/Runner.Worker."""
    sources = files("runner_action.sandbox.forges.github")
    programs = {"Listener": "runner_standin.py", "Worker": "worker_standin.py"}
    texts = {"config.sh": CONFIG, "run.sh": RUN}
    for part, name in programs.items():
        source = sources.joinpath(name).read_text("utf-8")
        texts[f"bin/Runner.{part}"] = f"#!/usr/bin/env python3\n{source}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return Archive(packed.getvalue(), hashlib.sha256(packed.getvalue()).hexdigest())
