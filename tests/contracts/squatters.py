"""Things of others that have the very name which a launch is about to give: of each kind, in each
cloud, from different moments on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import boto3

from runner_action.model import Instance
from runner_action.sandbox.clouds.aws.ec2 import ONLOOKER, FakeEC2
from runner_action.sandbox.clouds.azure.arm import FakeAzure
from runner_action.sandbox.clouds.azure.entra import SCOPE
from runner_action.sandbox.clouds.gcp.compute import FakeGcp
from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.kubernetes.rules import settled
from runner_action.sandbox.served import Application, Start
from tests.matrix.gate import answered
from tests.matrix.points import Fate


class Moment(StrEnum):
    """When the name is taken, and what becomes of the call that would have taken it."""

    BEFORE = "before the launch"
    BETWEEN = "between look and creation"
    LOST = "the answer to the creation is lost"
    TWICE = "the creation is delivered twice"
    REFUSED = "the creation is refused"
    """As the launcher lacks a permission: clouds look at that before they look at names."""


FATES = {Moment.LOST: Fate.LOST, Moment.TWICE: Fate.TWICE, Moment.REFUSED: Fate.REFUSED}


@dataclass(frozen=True)
class Squatter:
    """`make(fake, own)`: `own` is what the launch creates under that name when it is free.
    `reported`: what the launch says, as a pattern. `creating`: method and path, or EC2's action,
    of the call that would have taken the name. `launched`: it is of another launch of this name,
    so that `destroy` by name is meant for it as well."""

    make: Callable[[Any, Instance], None]
    reported: str
    creating: str
    with_key: bool = False
    launched: bool = False


def appear(
    fake: Any, service: str, squatter: Squatter, own: Instance, moment: Moment
) -> dict[Any, Any]:
    """Has it appear, now or then. Returns what it is, as soon as it did."""
    appeared: dict[Any, Any] = {}

    def now() -> None:
        before = there(fake)
        squatter.make(fake, own)
        new = there(fake)
        appeared.update({key: one for key, one in new.items() if before.get(key, ...) != one})

    if moment is Moment.BEFORE:
        now()
        return appeared

    def between(app: Application, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        action = re.search(rb"Action=(\w+)", body) if service == "aws" else None
        name = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        name = action[1].decode() if action else name
        if not re.search(squatter.creating, name):
            return app({**environ, "wsgi.input": io.BytesIO(body)}, start)
        fate = FATES.get(moment) if moment is Moment.REFUSED or not appeared else None
        if not appeared:
            now()
        return answered(service, fate, app, environ, body, start, lambda _signal: None)

    place = fake if isinstance(fake, FakeEC2) else fake.served
    place.between = between
    return appeared


def there(fake: Any) -> dict[Any, Any]:
    """All that is there and has a name."""
    if isinstance(fake, FakeEC2):
        groups = client(fake).describe_security_groups()["SecurityGroups"]
        return {one["GroupId"]: one for one in groups} | dict.fromkeys(fake.alive())
    if isinstance(fake, FakeGcp):
        return deepcopy(
            fake.instances | {("rule", key): one for key, one in fake.firewalls.items()}
        )
    if isinstance(fake, FakeAzure):
        return deepcopy(fake.groups | fake.things)
    assert isinstance(fake, FakeKubernetes)
    with fake.shelf.changed:
        every = [(kind, one) for kind in ("jobs", "secrets") for one in fake.shelf.of(kind)]
    return {(kind, one["metadata"]["name"]): one["metadata"]["uid"] for kind, one in every}


# --- AWS


def client(fake: FakeEC2) -> Any:
    session = boto3.session.Session(aws_access_key_id=ONLOOKER, aws_secret_access_key="canary-key")
    return session.client("ec2", region_name="us-east-1", endpoint_url=fake.url)


def _security_group(name: str, *, tagged: bool) -> Callable[[FakeEC2, Instance], None]:
    def make(fake: FakeEC2, _own: Instance) -> None:
        between, fake.between = fake.between, None
        ec2 = client(fake)
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName=name, Description="database", VpcId=vpc)
        if tagged:  # as whoever may tag may do
            tag = {"Key": "cml-runner", "Value": "security-group"}
            ec2.create_tags(Resources=[group["GroupId"]], Tags=[tag])
        fake.between = between

    return make


def own_groups_gone(fake: FakeEC2) -> None:
    ec2 = client(fake)
    for one in ec2.describe_security_groups()["SecurityGroups"]:
        if one["GroupName"].startswith("cml-runner"):
            ec2.delete_security_group(GroupId=one["GroupId"])


AWS = {
    f"security group{' with our tag' if tagged else ''}{' for SSH' if key else ''}": Squatter(
        _security_group("cml-runner-ssh" if key else "cml-runner", tagged=tagged),
        f"There is a security group cml-runner{'-ssh' if key else ''} in vpc-",
        "CreateSecurityGroup",
        with_key=key,
    )
    for tagged in (False, True)
    for key in (False, True)
}

# --- Azure


def _resource_group(tags: dict[str, str]) -> Callable[[FakeAzure, Instance], None]:
    def make(fake: FakeAzure, own: Instance) -> None:
        fake.groups[own.group] = {
            "id": f"{SCOPE}/resourceGroups/{own.group}",
            "name": own.group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": "eastus",
            "tags": tags,
            "properties": {"provisioningState": "Succeeded"},
        }
        _machine(fake, own, tags)

    return make


def _machine(fake: FakeAzure, own: Instance, tags: dict[str, str]) -> None:
    path = f"{SCOPE}/resourceGroups/{own.group}/providers/Microsoft.Compute/virtualMachines/cml-1"
    fake.things[path.lower()] = {
        "id": path,
        "name": "cml-1",
        "type": "Microsoft.Compute/virtualMachines",
        "location": "eastus",
        "tags": tags,
        "properties": {
            "provisioningState": "Succeeded",
            "vmId": "11111111-2222-3333-4444-666666666666",
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "storageProfile": {},
            "osProfile": {"linuxConfiguration": {}},
        },
    }


def _group_of_ours_with_their_machine(fake: FakeAzure, own: Instance) -> None:
    """The group is that of an earlier try of this launch."""
    _resource_group({"cml-runner": "runner", **own.tags})(fake, own)
    _machine(fake, own, {"team": "database"})


ANOTHER = {"cml-runner": "runner", "cml-runner:name": "cml-1", "cml-runner:launch": "another"}
GROUP = "There is a (resource group|machine cml-1 in) cml-1-"
PUT_GROUP = r"PUT .*/resourceGroups/[^/]+$"
AZURE = {
    "resource group": Squatter(_resource_group({"team": "database"}), GROUP, PUT_GROUP),
    "resource group of another launch": Squatter(
        _resource_group(ANOTHER), GROUP, PUT_GROUP, launched=True
    ),
    "machine": Squatter(
        _group_of_ours_with_their_machine,
        "There is a machine cml-1 in cml-1-",
        "PUT .*/virtualMachines/",
    ),
}

# --- Google Cloud


def _instance(labels: Callable[[Instance], dict[str, str]]) -> Callable[[FakeGcp, Instance], None]:
    def make(fake: FakeGcp, own: Instance) -> None:
        where = f"https://www.googleapis.com/compute/v1/projects/octo-train/zones/{own.zone}"
        fake.instances[own.zone, "cml-1"] = {
            "kind": "compute#instance",
            "id": "77",
            "name": "cml-1",
            "description": "by the database team",
            "creationTimestamp": "2026-11-20T00:00:00.000-00:00",
            "status": "RUNNING",
            "zone": where,
            "machineType": f"{where}/machineTypes/e2-standard-8",
            "labels": labels(own),
            "metadata": {"items": [{"key": "startup-script", "value": "#!/bin/sh"}]},
            "tags": {"items": ["cml-1"]},
            "scheduling": {"provisioningModel": "STANDARD"},
            "networkInterfaces": [{"networkIP": "10.0.0.9"}],
        }

    return make


def _rule(fake: FakeGcp, _own: Instance) -> None:
    fake.firewalls["cml-1-ssh"] = {
        "kind": "compute#firewall",
        "id": "7",
        "name": "cml-1-ssh",
        "description": "by the network team",
        "creationTimestamp": "2026-11-20T00:00:00.000Z",
        "targetTags": ["cml-1"],
    }


def _unlabelled(_own: Instance) -> dict[str, str]:
    return {}


def _labelled(own: Instance) -> dict[str, str]:
    """As whoever may label may do."""
    return {
        "cml-runner": "runner",
        "cml-runner-name": "cml-1",
        "cml-runner-launch": own.tags["cml-runner:launch"],
    }


MACHINE = "There is a machine cml-1 in us-east1-b"
INSERT = "POST .*/instances$"
GCP = {
    "machine": Squatter(_instance(_unlabelled), MACHINE, INSERT),
    "machine with our labels": Squatter(_instance(_labelled), MACHINE, INSERT),
    "machine, while we make a rule": Squatter(
        _instance(_unlabelled), MACHINE, INSERT, with_key=True
    ),
    "firewall rule": Squatter(
        _rule, "There is a firewall rule cml-1-ssh", "POST .*/firewalls$", with_key=True
    ),
}

# --- Kubernetes


def _job(labels: dict[str, str]) -> Callable[[FakeKubernetes, Instance], None]:
    def make(fake: FakeKubernetes, own: Instance) -> None:
        containers = [{"name": "database", "image": "postgres"}]
        pod = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": containers}}
        job = {
            "kind": "Job",
            "apiVersion": "batch/v1",
            "metadata": {"name": own.group, "namespace": "ci", "labels": labels},
            "spec": {"suspend": True, "template": pod},
        }
        with fake.shelf.changed:
            fake.shelf.put("jobs", settled("jobs", job))

    return make


def _secret(fake: FakeKubernetes, own: Instance) -> None:
    with fake.shelf.changed:
        fake.shelf.put(
            "secrets",
            {
                "kind": "Secret",
                "apiVersion": "v1",
                "type": "Opaque",
                "metadata": {"name": own.group, "namespace": "ci"},
                "data": {"agent.pyz": ""},
            },
        )


JOB = "There is a Job cml-1-"
KUBERNETES = {
    "Job": Squatter(_job({"app": "database"}), JOB, "POST .*/jobs$"),
    "Job of another launch": Squatter(
        _job({key.replace(":", "/"): value for key, value in ANOTHER.items()}),
        JOB,
        "POST .*/jobs$",
        launched=True,
    ),
    "Secret": Squatter(_secret, "There is a Secret cml-1-", "POST .*/secrets$"),
}

SQUATTERS = {"aws": AWS, "azure": AZURE, "gcp": GCP, "kubernetes": KUBERNETES}
