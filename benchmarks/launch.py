"""Seconds from process start to the request for a machine, beside a ten-line boto3 script that
makes the same two calls.

    make benchmark        or: python -m benchmarks.launch PYTHON [RUNS]

PYTHON is an interpreter that has what the launcher needs and nothing else, as in the image. Both
programs talk to the same local EC2 and start in turns, so that the machine's mood hits both. The
launcher does, in the same time: read and check inputs, three calls to GitHub, three look-ups at
EC2, and the user data.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from runner_action.sandbox.world import World

SCRIPT = """
import boto3
ec2 = boto3.client("ec2", region_name="us-west-1")
name = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"
filters = [
    {"Name": "name", "Values": [name]},
    {"Name": "architecture", "Values": ["x86_64"]},
]
images = ec2.describe_images(Owners=["099720109477"], Filters=filters)
newest = max(images["Images"], key=lambda image: image["CreationDate"])
made = ec2.run_instances(
    ImageId=newest["ImageId"],
    InstanceType="m6i.2xlarge",
    MinCount=1,
    MaxCount=1,
    UserData="#cloud-config",
)
print(made["Instances"][0]["InstanceId"])
"""


def seconds_to_request(
    world: World, python: str, argv: list[str], environ: dict[str, str]
) -> float:
    """Starts the program, waits for its RunInstances to arrive, and ends it."""
    world.ec2.calls.clear()
    began = time.perf_counter()
    process = subprocess.Popen(
        [python, *argv], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while not {"RunInstances", "CreateFleet"} & set(world.ec2.actions()):
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[0].decode())
        time.sleep(0.002)
    took = time.perf_counter() - began
    process.kill()
    process.communicate()
    return took


def main(python: str, runs: int) -> None:
    with World(boots=False) as world:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        environ = {**kept, **world.environ()}
        launcher = ["-m", "runner_action", "launch", "--cloud=aws"]
        for argv in (launcher, ["-c", SCRIPT]):
            seconds_to_request(world, python, argv, environ)  # once for the file system's cache
        taken = [
            (
                seconds_to_request(world, python, launcher, environ),
                seconds_to_request(world, python, ["-c", SCRIPT], environ),
            )
            for _ in range(runs)
        ]
    ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
    print(
        f"process start to the request for a machine, median of {runs}: launcher {ours:.2f} s,"
        f" ten-line script {theirs:.2f} s, ratio {ours / theirs:.2f}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7)
