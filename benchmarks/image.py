"""Size, layers and cold start of the image, beside an image of the same SDKs as they come.

python -m benchmarks.image        needs a Docker engine, as `make e2e` does
"""

from __future__ import annotations

import gzip
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runner_action.sandbox.world import World
from tests.e2e.engine import ROOT, Engine

PLAIN = """FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip && rm -rf /var/lib/apt/lists/*
COPY requirements/launcher.txt .
RUN python3 -m pip install --break-system-packages --no-cache-dir --no-deps -r launcher.txt
COPY runner_action /usr/lib/python3/dist-packages/runner_action
COPY schema/inputs.schema.json /usr/lib/python3/dist-packages/runner_action/
ENTRYPOINT ["python3", "-m", "runner_action"]
"""
RUNS = 7


def compressed(engine: Engine, image: str) -> int:
    """Bytes as a registry would hold them."""
    with tempfile.TemporaryDirectory() as folder:
        engine.docker("save", "-o", f"{folder}/image.tar", image)
        with tarfile.open(f"{folder}/image.tar") as archive:
            layers = [archive.extractfile(member) for member in archive.getmembers() if member.isfile()]
            return sum(len(gzip.compress(layer.read(), 6)) for layer in layers if layer)


def seconds(argv: Sequence[str], host: str) -> float:
    began = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", *argv], env={"PATH": "/usr/bin:/usr/local/bin", "DOCKER_HOST": host}, capture_output=True, check=True)
    return time.perf_counter() - began


def to_first_call(engine: Engine, image: str, world: World) -> float:
    """From `docker run` to the first request that the forge or the cloud sees."""
    world.ec2.calls.clear()
    world.github.requests.clear()
    given = [word for name, value in world.environ().items() for word in ("--env", f"{name}={value}")]
    began = time.perf_counter()
    command = ["docker", "run", "--rm", "--network", "host", *given, image, "launch", "--cloud=aws", "--dry-run"]
    process = subprocess.Popen(command, env={"PATH": "/usr/bin:/usr/local/bin", "DOCKER_HOST": engine.host}, stdout=-3, stderr=-3)
    while not world.ec2.calls and not world.github.requests:
        time.sleep(0.002)
    took = time.perf_counter() - began
    process.wait()
    return took


def main() -> None:
    engine = Engine()
    try:
        ours = engine.build("cml-runner:benchmark")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(PLAIN)
            plain = "cml-runner:plain"
            engine.docker("build", "--network", "host", "-t", plain, "-f", f"{folder}/Dockerfile", str(ROOT), timeout=900)
        empty = statistics.median(seconds(["--entrypoint", "/bin/true", ours], engine.host) for _ in range(RUNS))
        print("| image | compressed | layers | `--help` | first API call |\n| --- | --- | --- | --- | --- |")
        with World(boots=False) as world:
            for name, image in (("ours", ours), ("the same packages as they come", plain)):
                layers = len(engine.docker("history", "-q", image).stdout.split())
                help_seconds = statistics.median(seconds([image, "--help"], engine.host) for _ in range(RUNS))
                call = statistics.median(to_first_call(engine, image, world) for _ in range(RUNS))
                size = compressed(engine, image) / 1e6
                print(f"| {name} | {size:.0f} MB | {layers} | {help_seconds - empty:.2f} s | {call - empty:.2f} s |")
        print(f"\nMedians of {RUNS}; Docker's own {empty:.2f} s to start and remove a container are taken off.")
    finally:
        engine.close()


if __name__ == "__main__":
    main()
