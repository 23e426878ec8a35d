"""Size, layers and cold start of the image, compared with an image of the same SDKs unpruned.

python -m benchmarks.image        needs a Docker engine, as `make e2e` does
"""

from __future__ import annotations

import gzip
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from runner_action.model import ProviderName
from runner_action.sandbox.world import World
from tests.e2e.engine import ROOT, Engine

PLAIN = """
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip \\
 && rm -rf /var/lib/apt/lists/*
COPY requirements/launcher.txt .
RUN pip install --break-system-packages --no-cache-dir --no-deps --require-hashes -r launcher.txt
COPY runner_action /usr/lib/python3/dist-packages/runner_action
COPY schema/inputs.schema.json /usr/lib/python3/dist-packages/runner_action/
ENTRYPOINT ["python3", "-m", "runner_action"]
"""
RUNS = 7
NAME = "cml-runner-benchmark"


def compressed(engine: Engine, image: str) -> int:
    """Bytes as a registry would store them."""
    with tempfile.TemporaryDirectory() as folder:
        engine.docker("save", "-o", f"{folder}/image.tar", image)
        with tarfile.open(f"{folder}/image.tar") as archive:
            layers = [
                archive.extractfile(member) for member in archive.getmembers() if member.isfile()
            ]
            return sum(len(gzip.compress(layer.read(), 6)) for layer in layers if layer)


def clock(engine: Engine, name: str, moment: str) -> float:
    """When the first process of a container started or ended, according to the engine."""
    return datetime.fromisoformat(
        engine.docker("inspect", "--format", f"{{{{.State.{moment}}}}}", name).stdout.strip()
    ).timestamp()


def to_help(engine: Engine, image: str) -> float:
    """Seconds from the container's start to its end."""
    engine.docker("run", "--name", NAME, image, "--help")
    took = clock(engine, NAME, "FinishedAt") - clock(engine, NAME, "StartedAt")
    engine.docker("rm", NAME)
    return took


def to_first_call(engine: Engine, image: str, world: World) -> tuple[float, float]:
    """Seconds from the container's start to its first request, and to its first request to the
    cloud."""
    world.cloud.calls.clear()
    world.github.requests.clear()
    authority = world.folder / "authority.pem"
    trusting = ["--volume", f"{authority}:{authority}:ro"] if authority.exists() else []
    environ = [
        word for name, value in world.environ().items() for word in ("--env", f"{name}={value}")
    ]
    run = ["docker", "run", "--name", NAME, "--network", "host", *trusting, *environ, image]
    command = [*run, "launch", f"--cloud={world.provider}", "--dry-run"]
    process = subprocess.Popen(
        command,
        env={"PATH": "/usr/bin:/usr/local/bin", "DOCKER_HOST": engine.host},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen: list[float] = []
    while len(seen) < 2 and process.poll() is None:
        if (world.cloud.calls or world.github.requests) if not seen else world.cloud.calls:
            seen.append(time.time())
        else:
            time.sleep(0.002)
    if process.wait():
        raise RuntimeError(str(engine.docker("logs", NAME)))
    began = clock(engine, NAME, "StartedAt")
    engine.docker("rm", NAME)
    return seen[0] - began, seen[1] - began


def median_and_best(seconds: Iterable[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered):.2f} s ({ordered[0]:.2f})"


def main() -> None:
    engine = Engine()
    try:
        images = {
            "cml-runner": engine.build("cml-runner:benchmark"),
            "the same packages, unpruned": plain_image(engine),
        }
        print("| image | compressed | layers | `--help` |\n| --- | --- | --- | --- |")
        for name, image in images.items():
            layers = len(engine.docker("history", "-q", image).stdout.split())
            seconds = median_and_best(to_help(engine, image) for _ in range(RUNS))
            print(
                f"| {name} | {compressed(engine, image) / 1e6:.0f} MB | {layers} | {seconds} |",
                flush=True,
            )
        print(
            "\n| cloud | image | first call | first call to the cloud |\n| --- | --- | --- | --- |"
        )
        for cloud in ProviderName:
            first_calls(engine, cloud, images)
        print(
            f"\nMedian of {RUNS}, and the fastest, from the container's start, according to the"
            " engine."
        )
    finally:
        engine.docker("rm", "--force", NAME, check=False)
        engine.close()


def plain_image(engine: Engine) -> str:
    tag = "cml-runner:plain"
    with tempfile.TemporaryDirectory() as folder:
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text(f"FROM {engine.base()}{PLAIN}")
        build = ["build", "--network", "host", "-t", tag, "-f", str(dockerfile), str(ROOT)]
        engine.docker(*build, timeout=900)
    return tag


def first_calls(engine: Engine, cloud: ProviderName, images: Mapping[str, str]) -> None:
    with World(cloud=cloud, boots=False) as world:
        for name, image in images.items():
            runs = [to_first_call(engine, image, world) for _ in range(RUNS)]
            first, to_cloud = (median_and_best(seconds) for seconds in zip(*runs, strict=True))
            print(f"| {cloud} | {name} | {first} | {to_cloud} |", flush=True)


if __name__ == "__main__":
    main()
