"""What the agent costs its machine: memory, processor time per idle hour, bytes of user data.

    make benchmark        or: python -m benchmarks.agent [SECONDS]

A launch in the embedded world boots a machine whose agent waits for a job. After it has been idle
for a while, /proc shows what it used, and the watchdog is run as its timer runs it. The runner
program of GitHub or GitLab is not counted.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runner_action import bootstrap
from runner_action.bootstrap.units import text_of
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.machine.unit import command
from runner_action.sandbox.world import World

RUNS = 5
"""Runs of the watchdog, of which the median counts."""


def launched(world: World) -> tuple[Path, int]:
    """Launches a machine. Returns the folder and the process ID of its idle agent."""
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    argv = [sys.executable, "-m", "runner_action", "launch", "--cloud=aws", "--idle-timeout=never"]
    subprocess.run(
        argv,
        env={**inherited, **world.environ()},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ((instance, living),) = world.machines.living.items()
    agent = next(
        pid
        for pid in descendants(living.process.pid)
        if b"\0agent\0run" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return world.machines.root(instance) / bootstrap.HOME[1:], agent


def resident(pid: int) -> float:
    """Memory in MiB."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match
    return int(match[1]) / 1024


def used(pid: int) -> float:
    """Seconds of processor time so far, of the process and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def watchdog_run(home: Path) -> float:
    """Seconds of processor time of one run, while the heartbeat is fresh."""
    (line,) = re.findall("^ExecStart=(.*)$", text_of("cml-runner-watchdog.service"), re.M)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command(line), cwd=home, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(seconds: float) -> None:
    every = re.search(r"OnUnitInactiveSec=(\d+)s", text_of("cml-runner-watchdog.timer"))
    assert every
    with World() as world:
        home, agent = launched(world)
        data = (
            (world.machines.root(next(iter(world.machines.living))).parent / "user-data")
            .stat()
            .st_size
        )
        time.sleep(5)  # until its start is over
        before = used(agent)
        began = time.perf_counter()
        time.sleep(seconds)
        per_hour = (used(agent) - before) / (time.perf_counter() - began) * 3600
        watchdog = 3600 / int(every[1]) * statistics.median(watchdog_run(home) for _ in range(RUNS))
        memory = resident(agent)
    print(f"the agent on Python {sys.version.split()[0]}, idle for {seconds:.0f} s:")
    print(f"  resident memory            {memory:7.1f} MiB   (aim 25)")
    print(f"  processor time, agent      {per_hour:7.1f} s per idle hour (aim 5)")
    print(f"  processor time, watchdog   {watchdog:7.1f} s per hour, a run every {every[1]} s")
    print(f"  user data                  {data / 1024:7.1f} KiB   (of 16; more in the table below)")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
