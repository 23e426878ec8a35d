"""The image as `docker run` starts it: what is in it, how it starts, how it takes inputs,
signals and other users."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from runner_action.sandbox.clouds.azure.entra import CLIENT, SUBSCRIPTION, TENANT
from runner_action.sandbox.world import KEY, TOKEN, World
from tests.e2e.conftest import TAG
from tests.e2e.engine import Engine, checkout
from tests.sandbox.conftest import all_gone, example, until
from tests.sandbox.test_azure import IDENTITY, granted

OURS = {"cml-runner", "cml-runner-cleanup"}


class Container:
    """`docker run --rm` of the image, on this machine's network; `variables` as the user gives
    them."""

    def __init__(
        self, engine: Engine, *argv: str, options: Sequence[str] = (), variables: Mapping[str, str]
    ) -> None:
        self.engine, self.name = engine, f"cml-runner-e2e-{os.getpid()}-{time.monotonic_ns()}"
        given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        command = [
            "docker",
            "run",
            "--rm",
            "--name",
            self.name,
            "--network",
            "host",
            *options,
            *given,
            TAG,
            *argv,
        ]
        environ = {**os.environ, "DOCKER_HOST": engine.host}
        self.process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait(self, seconds: float = 60) -> int:
        self.told, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode

    def signal(self, name: str) -> None:
        self.engine.docker("kill", "--signal", name, self.name)


def test_help_and_version(engine: Engine, image: str) -> None:
    assert "launch runners" in engine.docker("run", "--rm", image, "--help").stdout
    assert "--cloud-region" in engine.docker("run", "--rm", image, "launch", "--help").stdout
    assert "cml-runner 0." in engine.docker("run", "--rm", image, "--version").stdout


def test_every_library_that_a_launch_may_load_is_whole(engine: Engine, image: str) -> None:
    """Pruning has left out nothing that they import."""
    ours = ", ".join(
        f"runner_action.providers.{cloud}.client" for cloud in ("gcp", "azure", "kubernetes")
    )
    loads = (
        f"boto3, github, gitlab, jsonschema, tenacity, {ours},"
        " runner_action.providers.azure.credentials as azure"
    )
    makes = (
        "from runner_action.providers.azure.options import AzureAccount as A;"
        " azure.credential(A(), None);"
        " azure.credential(A(client_id='c', tenant_id='t'), str)"
    )
    code = (
        f"import sys; sys.path.insert(0, '/usr/lib/cml-runner'); import {loads}; {makes};"
        " print('whole')"
    )
    assert (
        "whole"
        in engine.docker(
            "run", "--rm", "--entrypoint", "/usr/bin/python3", image, "-c", code
        ).stdout
    )


def test_by_flags_as_another_user_on_a_closed_file_system(
    engine: Engine, image: str, world: World
) -> None:
    environ = world.environ()
    repo, driver = environ.pop("CML_RUNNER_REPO"), environ.pop("CML_RUNNER_DRIVER")
    shut = ("--user", "65532:65532", "--read-only", "--cap-drop=ALL")
    argv = (
        "launch",
        f"--repo={repo}",
        f"--driver={driver}",
        "--cloud=aws",
        "--labels=cml",
        "--idle-timeout=5",
        "--json",
    )
    container = Container(engine, *argv, options=shut, variables=environ)
    assert container.wait() == 0, container.told
    told, _ = json.JSONDecoder().raw_decode(container.told, container.told.index("\n{") + 1)
    assert told["instance-id"] in world.machines.living
    all_gone(world)


def test_on_google_cloud(engine: Engine, image: str) -> None:
    """With a key, which the machine deletes itself with."""
    with World(cloud="gcp", timer_factor=0.02) as world:
        container = Container(
            engine,
            "--cloud=gcp",
            "--idle-timeout=1",
            "--first-job-timeout=60",
            "--labels=cml",
            variables=world.environ(),
        )
        assert container.wait() == 0, container.told
        world.forge.queue_job(["cml"], 0.1)
        all_gone(world)
        assert len(world.machines.living) == 1
        assert world.gcp.key["private_key"].splitlines()[3] not in container.told


def test_on_azure_without_any_secret(engine: Engine, image: str) -> None:
    """The inputs of examples/oidc-azure.yml, and the job's own id token, at the address that
    GitHub tells a container."""
    with World(cloud="azure", timer_factor=0.02) as world:
        granted(world)
        given = example(
            "oidc-azure",
            AZURE_CLIENT_ID=CLIENT,
            AZURE_TENANT_ID=TENANT,
            AZURE_SUBSCRIPTION_ID=SUBSCRIPTION,
            MACHINE_IDENTITY=IDENTITY,
        )
        trusted = ("--volume", f"{world.folder}/authority.pem:/authority.pem:ro")
        variables = {
            **world.job_environ(),
            **given,
            **world.id_token_environ(),
            "INPUT_IDLE-TIMEOUT": "1",
            "INPUT_FIRST-JOB-TIMEOUT": "15",
            "REQUESTS_CA_BUNDLE": "/authority.pem",
        }
        container = Container(engine, options=trusted, variables=variables)
        assert container.wait() == 0, container.told
        assert world.azure
        assert (world.azure.entra.logins, len(world.github.id_tokens)) == (0, 1)
        assert "canary" not in re.sub(r"(?m)^::add-mask::.*$", "", container.told)
        all_gone(world)


def test_on_kubernetes(engine: Engine, image: str) -> None:
    """With a kubeconfig in a variable, and a template in YAML: the client's classes are not in
    the image."""
    with World(cloud="kubernetes", timer_factor=0.02) as world:
        words = (
            "--cloud=kubernetes",
            "--idle-timeout=1",
            "--first-job-timeout=60",
            "--labels=cml",
            "--cloud-kubernetes-pod-template=spec: {priorityClassName: batch}",
        )
        container = Container(engine, *words, variables=world.environ())
        assert container.wait() == 0, container.told
        world.forge.queue_job(["cml"], 0.1)
        all_gone(world)
        assert world.kubernetes
        assert "canary" not in re.sub(r"(?m)^::add-mask::.*$", "", container.told)


def test_by_variables_and_inputs(engine: Engine, image: str, world: World) -> None:
    """A name with a hyphen, as actions give it, would be dropped by a shell on the way."""
    inputs = {"INPUT_CLOUD": "aws", "INPUT_CLOUD-REGION": "eu-west", "INPUT_IDLE-TIMEOUT": "5"}
    container = Container(engine, variables={**world.environ(), **inputs})
    assert container.wait() == 0, container.told
    assert {call["region"] for call in world.ec2.calls} == {"eu-west-1"}
    assert TOKEN not in container.told
    assert KEY not in container.told
    all_gone(world)


def test_scripts_of_gitlab_run_in_it(engine: Engine, image: str) -> None:
    """GitLab Runner leaves the entrypoint out and gives a shell its script, with the job's
    variables."""
    with World("gitlab", timer_factor=0.02) as world:
        script = (
            'set -eo pipefail; mkdir -p "$CI_PROJECT_DIR"; cd "$CI_PROJECT_DIR"; printf %s x >'
            " .id-token; cml-runner launch; cat cml-runner.env"
        )
        inputs = {
            "CML_RUNNER_CLOUD": "aws",
            "CML_RUNNER_LABELS": "cml",
            "CML_RUNNER_IDLE_TIMEOUT": "5",
            "CI_PROJECT_DIR": "/builds/octo/train",
        }
        container = Container(
            engine,
            "-c",
            script,
            options=("--entrypoint", "sh"),
            variables={**world.job_environ(), **inputs},
        )
        assert container.wait() == 0, container.told
        (instance,) = world.machines.living
        assert f"INSTANCE_ID={instance}\n" in container.told
        all_gone(world)


def test_a_dry_run_shows_its_plan(engine: Engine, image: str, dead_world: World) -> None:
    container = Container(
        engine, "launch", "--cloud=aws", "--dry-run", variables=dead_world.environ()
    )
    assert container.wait() == 0, container.told
    assert "Plan: nothing was created" in container.told
    assert dead_world.machines.living == {}


@pytest.mark.parametrize("delay", ["CreateFleet", ""], ids=["creating", "waiting"])
def test_sigterm_takes_everything_back(
    delay: str, engine: Engine, image: str, dead_world: World
) -> None:
    if delay:
        dead_world.ec2.delays[delay] = 2
    container = Container(
        engine, "launch", "--cloud=aws", "--single", variables=dead_world.environ()
    )
    until(
        (lambda: dead_world.forge.seats()) if delay else dead_world.ec2.alive,
        "the launch to be on its way",
        30,
    )
    container.signal("TERM")
    assert container.wait(30) == 143, container.told
    all_gone(dead_world)


def test_a_signal_ends_it_before_it_has_begun(
    engine: Engine, image: str, dead_world: World
) -> None:
    """The first process of a container hears no signal that it has no handler for; Python itself
    needs some hundredths of a second for that."""
    container = Container(engine, "launch", "--cloud=aws", variables=dead_world.environ())
    until(
        lambda: (
            engine.docker("kill", "--signal", "TERM", container.name, check=False).returncode
            and container.process.poll() is not None
        ),
        "its end",
        8,
    )
    assert container.wait() == 143, container.told
    assert (dead_world.forge.ever, dead_world.machines.living) == ([], {})


# --- what is in it


def layers(engine: Engine, image: str, folder: Path) -> list[bytes]:
    engine.docker("save", "-o", str(folder / "image.tar"), image)
    with tarfile.open(folder / "image.tar") as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return [file.read() for member in members if (file := archive.extractfile(member))]


def test_it_is_small(engine: Engine, image: str, tmp_path: Path) -> None:
    assert len(gzip.compress(b"".join(layers(engine, image, tmp_path)), 6)) < 60_000_000


def test_only_what_a_launch_needs_is_in_it(engine: Engine, image: str, tmp_path: Path) -> None:
    files: dict[str, tarfile.TarInfo] = {}
    for layer in layers(engine, image, tmp_path):
        if layer[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                files.update(
                    {member.name.removeprefix("./"): member for member in archive.getmembers()}
                )
    programs = {
        Path(name).name
        for name, member in files.items()
        if name.startswith(("usr/bin/", "usr/local/bin/")) and member.isfile()
    }
    assert programs == {"busybox", "python3.13", *OURS}
    assert not [name for name, member in files.items() if member.mode & 0o6000], (
        "nothing becomes somebody else"
    )
    assert not [
        name
        for name in files
        if "/sandbox/" in name or name.endswith((".a", ".h", ".pyi")) or "/tests/" in name
    ]
    services = {
        Path(name).parts[5]
        for name in files
        if name.startswith("usr/lib/cml-runner/botocore/data/") and len(Path(name).parts) > 6
    }
    assert {"ec2", "sts"} <= services
    assert len(services) < 8
    assert "var/lib/dpkg/status.d/libc6" in files, "scanners find out what it was made of"
    assert "usr/share/doc/libc6/copyright" in files


def test_no_secret_of_the_builder_is_in_it(engine: Engine, image: str, tmp_path: Path) -> None:
    """Files that lie about where it is built: what is not named is not sent."""
    context = checkout(tmp_path / "context")
    canary = f"canary-{os.urandom(8).hex()}"
    for name in (".env", "token.txt", "runner_action/.env", "cml-runner.env", ".git/config"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(canary)
    tag = engine.build("cml-runner:canary", context=context)
    told = (
        engine.docker("image", "inspect", tag).stdout
        + engine.docker("history", "--no-trunc", tag).stdout
    )
    assert canary not in told
    assert not any(canary.encode() in layer for layer in layers(engine, tag, tmp_path))
