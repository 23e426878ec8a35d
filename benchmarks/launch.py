"""Seconds from process start to the request for a machine, compared with a ten-line boto3 script
that makes the same two calls.

    make benchmark        or: python -m benchmarks.launch PYTHON [RUNS]

PYTHON is an interpreter that has only the launcher's dependencies, as in the image. Both programs
talk to the same local EC2 and run alternately, so that other load on this machine affects both. In
the same time, the launcher reads and checks inputs, makes three calls to GitHub and three lookups
at EC2, and builds the user data.
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
response = ec2.run_instances(
    ImageId=newest["ImageId"],
    InstanceType="m6i.2xlarge",
    MinCount=1,
    MaxCount=1,
    UserData="#cloud-config",
)
print(response["Instances"][0]["InstanceId"])
"""


def seconds_to_request(
    world: World, python: str, argv: list[str], environ: dict[str, str]
) -> float:
    """Starts the program, waits until its RunInstances arrives, and kills it."""
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
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        environ = {**inherited, **world.environ()}
        launcher = ["-m", "runner_action", "launch", "--cloud=aws"]
        for argv in (launcher, ["-c", SCRIPT]):
            seconds_to_request(world, python, argv, environ)  # warms the file system's cache
        pairs = [
            (
                seconds_to_request(world, python, launcher, environ),
                seconds_to_request(world, python, ["-c", SCRIPT], environ),
            )
            for _ in range(runs)
        ]
    launch, script = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"process start to the request for a machine, median of {runs}: launcher {launch:.2f} s,"
        f" ten-line script {script:.2f} s, ratio {launch / script:.2f}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7)
