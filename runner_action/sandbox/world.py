"""The embedded world: GitHub, GitLab, the clouds and their machines, in one temporary folder that
is removed when the world closes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import assert_never

from runner_action.agent.removal import remove_tree
from runner_action.model import ForgeName, ProviderName
from runner_action.sandbox.clouds.aws.ec2 import FakeEC2
from runner_action.sandbox.clouds.azure.arm import FakeAzure
from runner_action.sandbox.clouds.azure.entra import (
    CLIENT,
    HOST,
    LAUNCHER,
    SCOPE,
    SECRET,
    SUBSCRIPTION,
    TENANT,
)
from runner_action.sandbox.clouds.azure.rbac import CONTRIBUTOR, NOT_OF_CONTRIBUTOR
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from runner_action.sandbox.forges.github.api import ID_TOKEN_REQUEST_TOKEN, FakeGitHub
from runner_action.sandbox.forges.gitlab.api import FakeGitLab
from runner_action.sandbox.forges.gitlab.variables import iid_of
from runner_action.sandbox.forges.memory import Forge
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.nodes import Node
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.machine.metadata import FakeMetadata
from runner_action.sandbox.machine.systemd import descendants
from runner_action.sandbox.served import Served

TOKEN = "canary-admin-token"
KEY = "canary-secret-access-key"
POD_IMAGE = "registry.example/cml-runner:runner"
"""Never pulled: a pod of this world is a process."""
OFF_SECONDS = 10.0
"""From the power button until a reclaimed machine is off. Real clouds give a minute or more."""


def pod_command(
    python: str, factor: float, _pod: str, place: Path, walls: bool = False
) -> list[str]:
    """The command whose process is a pod."""
    return [
        sys.executable,
        "-m",
        "runner_action.sandbox.kubernetes.pod",
        str(place),
        python,
        str(factor),
        *(["walls"] if walls else []),
    ]


def nodes() -> list[Node]:
    """Two nodes, as in a managed cluster: spot nodes have their vendor's taint."""
    spot = {"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}
    return [Node("node-1"), Node("spot-1", labels={spot["key"]: spot["value"]}, taints=[spot])]


class World:
    """`with World() as world:`; launch with the variables of `world.environ()`, or with those of
    `world.job_environ()` as a job does. `forge`: where the repository is; `cloud`: where the
    machines are; `host`: address of all servers; the others as in Machines.
    """

    def __init__(
        self,
        forge: str = ForgeName.GITHUB,
        cloud: str = ProviderName.AWS,
        *,
        python: str = sys.executable,
        timer_factor: float = 1.0,
        boots: bool = True,
        host: str = "127.0.0.1",
        machine: Callable[[str, Path], Sequence[str]] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cml-runner-sandbox-"))
        self.kind = ForgeName(forge)
        self.github = FakeGitHub(
            tokens={TOKEN: "admin", "canary-readonly-token": "readonly"}, host=host
        )
        self.gitlab = FakeGitLab(
            tokens={TOKEN: ["api"], "canary-readonly-token": ["read_api"]}, prefix="/git", host=host
        )
        self.metadata = FakeMetadata()
        self.provider = ProviderName(cloud)
        if self.provider is ProviderName.KUBERNETES and not machine:
            machine = partial(pod_command, python, timer_factor)
        self.machines = Machines(
            self.folder / "machines", python, timer_factor, boots, machine, self.metadata.url
        )
        self.metadata.taken = self._taken
        self.ec2 = FakeEC2(self.machines, host=host)
        self.gcp = FakeGcp(machines=self.machines, metadata=self.metadata, host=host)
        self.azure = self._azure(host) if self.provider is ProviderName.AZURE else None
        self.kubernetes: FakeKubernetes | None = None
        if self.provider is ProviderName.KUBERNETES:
            machines = self.machines if boots else None
            self.kubernetes = FakeKubernetes(machines, host, 3 * timer_factor, nodes=nodes())

    @property
    def server(self) -> FakeGitHub | FakeGitLab:
        match self.kind:
            case ForgeName.GITHUB:
                return self.github
            case ForgeName.GITLAB:
                return self.gitlab
            case _ as unknown:
                assert_never(unknown)

    @property
    def forge(self) -> Forge:
        """The forge's memory: runners and jobs."""
        return self.server.forge

    def _azure(self, host: str) -> FakeAzure:
        """Over TLS, with an authority that the launcher gets by a variable and the machines' image
        trusts. The launcher is Contributor; identities of machines have no rights until these are
        granted."""
        import trustme

        authority = trustme.CA()
        issued = authority.issue_cert(host)
        files = [self.folder / name for name in ("certificate.pem", "key.pem", "authority.pem")]
        issued.private_key_and_cert_chain_pem.write_to_path(str(files[0]))
        issued.private_key_pem.write_to_path(str(files[1]))
        authority.cert_pem.write_to_path(str(files[2]))
        self.machines.trusted = authority.cert_pem.bytes()
        azure = FakeAzure(
            (str(files[0]), str(files[1])),
            machines=self.machines,
            metadata=self.metadata,
            host=host,
        )
        azure.entra.trusted = self.github.id_tokens
        for principal in (LAUNCHER, HOST):
            azure.rights.grant(principal, *CONTRIBUTOR, but=NOT_OF_CONTRIBUTOR, scope=SCOPE)
        return azure

    @property
    def cloud(self) -> FakeEC2 | FakeGcp | FakeAzure | FakeKubernetes:
        match self.provider:
            case ProviderName.AWS:
                return self.ec2
            case ProviderName.AZURE:
                assert self.azure
                return self.azure
            case ProviderName.GCP:
                return self.gcp
            case ProviderName.KUBERNETES:
                assert self.kubernetes
                return self.kubernetes
            case _ as unknown:
                assert_never(unknown)

    def environ(self) -> dict[str, str]:
        """Variables for a launch in this world."""
        downloads = (
            {"CML_RUNNER_RUNNER_DOWNLOADS": self.gitlab.downloads}
            if self.kind is ForgeName.GITLAB
            else {}
        )
        return {
            **self._secrets(),
            **downloads,
            "CML_RUNNER_REPO": self.server.repo_url,
            "CML_RUNNER_DRIVER": self.kind.value,
        }

    def job_environ(
        self,
        run: int = 77,
        number: int = 1,
        name: str = "launch",
        attempt: int = 1,
        runner: str = "hosted",
    ) -> dict[str, str]:
        """The same, and the variables that GitHub or GitLab sets for a job. `run`: on GitLab, the
        pipeline."""
        if self.kind is ForgeName.GITLAB:
            project = self.gitlab.project
            return {
                **self._secrets(),
                **project.at_creation(iid_of(run), name),
                **project.persisted(run, number),
                "CML_RUNNER_RUNNER_DOWNLOADS": self.gitlab.downloads,
            }
        job = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_ID": str(run),
            "GITHUB_RUN_ATTEMPT": str(attempt),
            "GITHUB_JOB": name,
            "GITHUB_ACTION": "__self",
        }
        server = {
            "GITHUB_SERVER_URL": self.github.url,
            "GITHUB_API_URL": f"{self.github.url}/api/v3",
            "GITHUB_REPOSITORY": "octo/train",
            "RUNNER_NAME": runner,
        }
        return {**self._secrets(), **job, **server}

    def id_token_environ(self) -> dict[str, str]:
        """Variables that GitHub sets for a job with `permissions: id-token: write`; those of a
        service principal are empty."""
        request = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.github.url}/id-token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ID_TOKEN_REQUEST_TOKEN,
        }
        return {
            **request,
            **dict.fromkeys(
                (
                    "AZURE_CLIENT_ID",
                    "AZURE_TENANT_ID",
                    "AZURE_SUBSCRIPTION_ID",
                    "AZURE_CLIENT_SECRET",
                ),
                "",
            ),
        }

    def _secrets(self) -> dict[str, str]:
        """Secrets of a launch; the address of the launcher's release, which its image has; and the
        image of pods, which a release would write into the launcher. Everything is served without
        TLS."""
        image = {"CML_RUNNER_CLOUD_IMAGE": POD_IMAGE} if self.kubernetes else {}
        return {
            **self._credentials(),
            **image,
            "CML_RUNNER_RELEASE": self.github.agent_downloads,
            "CML_RUNNER_ALLOW_HTTP": "true",
        }

    def _credentials(self) -> dict[str, str]:
        if self.provider is ProviderName.GCP:
            key = json.dumps(self.gcp.key)
            return {
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": self.gcp.url,
                "GOOGLE_APPLICATION_CREDENTIALS_DATA": key,
                "REPO_TOKEN": TOKEN,
            }
        if self.kubernetes:
            return {"KUBERNETES_CONFIGURATION": self.kubernetes.kubeconfig, "REPO_TOKEN": TOKEN}
        if self.azure:
            ids = {
                "AZURE_CLIENT_ID": CLIENT,
                "AZURE_TENANT_ID": TENANT,
                "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
                "AZURE_CLIENT_SECRET": SECRET,
            }
            endpoints = {
                "AZURE_AUTHORITY_HOST": self.azure.url,
                "AZURE_RESOURCE_MANAGER_ENDPOINT": self.azure.url,
            }
            return {
                **ids,
                **endpoints,
                "REQUESTS_CA_BUNDLE": str(self.folder / "authority.pem"),
                "REPO_TOKEN": TOKEN,
            }
        return {
            "AWS_ENDPOINT_URL": self.ec2.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "REPO_TOKEN": TOKEN,
        }

    def interrupt(self, instance: str, seconds: float) -> None:
        """The cloud reclaims an instance in so many seconds. A pod is evicted."""
        if not self.kubernetes:
            self.metadata.notice(instance, seconds)
            return
        data = json.loads((self.machines.folder / instance / "user-data").read_bytes())
        self.kubernetes.evict(data["pod"]["metadata"]["name"], int(seconds))

    def _taken(self, instance: str, seconds: float) -> None:
        """After a notice. Google presses the power button together with the notice, half a minute
        before the spot machine is off, and then deletes it:
        https://cloud.google.com/compute/docs/instances/spot#preemption-process"""
        google = self.provider is ProviderName.GCP
        if google:
            self.gcp.preempt(instance)
        self.machines.take(
            instance, 0.0 if google else seconds, seconds if google else seconds + OFF_SECONDS
        )

    def services(self) -> dict[str, Served | FakeEC2]:
        """All services that a launch in this world may call, by name."""
        services: dict[str, Served | FakeEC2] = {self.kind.value: self.server, "aws": self.ec2}
        for name, cloud in (
            ("azure", self.azure),
            ("gcp", self.gcp),
            ("kubernetes", self.kubernetes),
        ):
            if cloud:
                services[name] = cloud.served
        return services

    def left(self) -> list[str]:
        """What must not remain at the end: runners, instances, firewall rules."""
        runners = [
            f"runner {seat.name}"
            for server in (self.github, self.gitlab)
            for seat in server.forge.seats()
        ]
        rules = [f"firewall rule {rule}" for rule in self.gcp.firewalls]
        clouds = (self.ec2, self.gcp, self.azure, self.kubernetes)
        instances: list[str] = []
        for cloud in clouds:
            if cloud:
                instances += [f"instance {instance}" for instance in cloud.alive()]
        return [*runners, *instances, *rules]

    def processes(self) -> list[int]:
        """Process IDs of all machines, including their supervisors."""
        pids = [self.machines.living[instance].process.pid for instance in self.machines.running()]
        return [*pids, *(below for pid in pids for below in descendants(pid))]

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.machines.close()
        self.ec2.close()
        self.gcp.close()
        for cloud in (self.azure, self.kubernetes):
            if cloud:
                cloud.close()
        self.github.close()
        self.gitlab.close()
        self.metadata.close()
        for path in remove_tree(self.folder):  # jobs may have mounted something there
            print(f"not removed: {path}", file=sys.stderr)
