"""Seconds from process start until EC2 has all machines of a launch, and the number of calls, by
`count`.

    make benchmark        or: python -m benchmarks.count PYTHON [RUNS]

Every call to EC2 is delayed by about the latency to a region nearby, so that sequential calls would
show.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping

from runner_action.sandbox.world import World

DELAY = 0.15
CREATING = ("CreateFleet", "RunInstances")
LOOKUPS = (
    "DescribeImages",
    "DescribeSubnets",
    "DescribeSecurityGroups",
    "DescribeInstanceTypeOfferings",
)


def launch(python: str, count: int, inherited: Mapping[str, str]) -> tuple[float, Counter[str]]:
    """In a world of its own. A first launch creates group and template, which all later launches
    use."""
    with World(boots=False) as world:
        environ = {**inherited, **world.environ()}
        for name, number in (("first", 1), ("measured", count)):
            world.ec2.calls.clear()
            if name == "measured":
                world.ec2.delays = dict.fromkeys((*CREATING, *LOOKUPS), DELAY)
            before = len(world.ec2.alive())
            began = time.perf_counter()
            argv = [
                python,
                "-m",
                "runner_action",
                "launch",
                "--cloud=aws",
                f"--name={name}",
                f"--count={number}",
            ]
            process = subprocess.Popen(
                argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            while len(world.ec2.alive()) < before + number:
                if process.poll() is not None:
                    raise RuntimeError(process.communicate()[0].decode())
                time.sleep(0.005)
            took = time.perf_counter() - began
            process.kill()
            process.communicate()
        return took, Counter(world.ec2.actions())


def main(python: str, runs: int) -> None:
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    medians = {}
    for count in (1, 20):
        results = [launch(python, count, inherited) for _ in range(runs)]
        medians[count] = statistics.median(took for took, _ in results)
        calls = results[-1][1]
        creating = sum(calls[name] for name in CREATING)
        print(
            f"count {count:2}: {medians[count]:.2f} s until EC2 has all of them, {creating} call(s)"
            f" that create them, {sum(calls.values())} in all; median of {runs}"
        )
    print(f"20 machines take {medians[20] / medians[1]:.2f} times as long as a single one")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
