"""The user's words at Azure: tables, refusals, golden plans, requests and user data. No network;
what is made of them is judged in tests/contracts/test_azure.py."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from runner_action import bootstrap
from runner_action.agent.spec import AgentSpec
from runner_action.bootstrap import fitting
from runner_action.errors import InputError
from runner_action.model import Deletion, Download, Identity, Machine, Place, Registration, Secret
from runner_action.providers.azure import ladder, plan, requests
from runner_action.request import CloudRequest
from runner_action.sandbox.clouds.azure.shelf import IMAGES, SKUS
from tests import goldens
from tests.fakes import unpacked
from tests.test_launch import request

OURS = "/subscriptions/s/resourceGroups/ours/providers"
IDENTITY = f"{OURS}/Microsoft.ManagedIdentity/userAssignedIdentities/machine"
SUBNET = f"{OURS}/Microsoft.Network/virtualNetworks/net/subnets/builders"
KEY = Secret(
    json.dumps(
        {
            "tenant": "t",
            "client": "c",
            "secret": "canary-secret",
            "authority": "https://login.microsoftonline.com",
        }
    )
)


def cloud_of(*argv: str) -> CloudRequest:
    cloud = request("--cloud=azure", *argv).cloud
    assert cloud
    return cloud


@pytest.mark.parametrize(
    ("word", "region", "zone"),
    [
        ("us-west", "westus2", None),
        ("us-east", "eastus", None),
        ("eu-north", "northeurope", None),
        ("eu-west", "westeurope", None),
        ("swedencentral", "swedencentral", None),
        ("westus3-2", "westus3", "2"),
    ],
)
def test_regions_and_zones(word: str, region: str, zone: str | None) -> None:
    assert plan.plan(cloud_of(f"--cloud-region={word}")).places == (
        Place(region=region, zone=zone),
    )


@pytest.mark.parametrize(
    ("argv", "native", "architecture", "offer"),
    [
        ([], "Standard_D8s_v5", "x64", "ubuntu-24_04-lts"),
        (["--cloud-type=xl"], "Standard_D64s_v5", "x64", "ubuntu-24_04-lts"),
        (["--cloud-type=m+t4"], "Standard_NC4as_T4_v3", "x64", "ubuntu-hpc"),
        (["--cloud-type=l", "--cloud-gpu=t4"], "Standard_NC64as_T4_v3", "x64", "ubuntu-hpc"),
        (["--cloud-gpu=a100:2"], "Standard_NC48ads_A100_v4", "x64", "ubuntu-hpc"),
        (["--cloud-type=xl+h100"], "Standard_ND96isr_H100_v5", "x64", "ubuntu-hpc"),
        (["--cloud-type=m+tesla"], "Standard_NC24ads_A100_v4", "x64", "ubuntu-hpc"),
        (["--cloud-type=m+k80"], "Standard_NC4as_T4_v3", "x64", "ubuntu-hpc"),
        (
            ["--cloud-type=Standard_NC4as_T4_v3", "--cloud-gpu=nvidia-tesla-t4"],
            *("Standard_NC4as_T4_v3", "x64", "ubuntu-hpc"),
        ),
        (["--cloud-type=m+l4"], "Standard_NC4as_T4_v3", "x64", "ubuntu-hpc"),
        (["--cloud-type=Standard_D8ps_v5"], "Standard_D8ps_v5", "arm64", "ubuntu-24_04-lts"),
        (["--cloud-type=Standard_B2pts_v2"], "Standard_B2pts_v2", "arm64", "ubuntu-24_04-lts"),
        (["--cloud-type=Standard_M8-2ms"], "Standard_M8-2ms", "x64", "ubuntu-24_04-lts"),
        (["--cloud-type=Standard_NV32as_v4"], "Standard_NV32as_v4", "x64", "ubuntu-24_04-lts"),
    ],
)
def test_sizes(argv: list[str], native: str, architecture: str, offer: str) -> None:
    found = plan.plan(cloud_of(*argv))
    assert (found.instance_types, found.architecture, found.image.split(":")[1]) == (
        (native,),
        architecture,
        offer,
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cloud-gpu=t4:2"], r"m\+t4:2 does not exist on Azure; Azure has t4 by 1, 4"),
        (
            ["--cloud-region=west-europe"],
            "cloud-region west-europe is not a region or zone of Azure",
        ),
        (
            ["--cloud-type=Standard_D2s_v5,Standard_D2ps_v5"],
            r"two architectures \(Standard_D2ps_v5 arm64",
        ),
        (
            ["--cloud-image=ubuntu"],
            "cloud-image ubuntu is not an Azure image; write publisher:offer:sku:version",
        ),
        (["--cloud-type=Standard_NC6"], r"K80 GPUs \(NC\); write Standard_NC4as_T4_v3"),
        (["--cloud-type=Standard_NC6s_v3"], "V100 GPUs .*; write Standard_NC24ads_A100_v4"),
        (["--cloud-type=Standard_D8s_v5", "--cloud-gpu=t4"], "Standard_D8s_v5 has no GPU"),
        (
            ["--cloud-type=Standard_NC4as_T4_v3", "--cloud-gpu=a100"],
            r"has a GPU of its own \(t4\), so leave cloud-gpu a100 out",
        ),
        (["--cloud-metadata=a/b=x"], "cloud-metadata a/b=… is not an Azure tag"),
        (["--cloud-permission-set=someone"], "someone is not a user-assigned identity"),
    ],
)
def test_what_azure_cannot_do_is_refused_with_what_it_can(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan(cloud_of(*argv))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan.plan(
            cloud_of(
                "--cloud-region=west-europe",
                "--cloud-metadata=a/b=x",
                "--cloud-permission-set=someone",
                "--cloud-image=x",
            )
        )
    assert len(caught.value.problems) == 4


# --- golden plans, requests and user data


NASTY = 'he said "it\'s $HOME"; `x` \\ ünïcode 🚂'
SCRIPT = base64.b64encode(f"#!/bin/bash\necho '{NASTY}'\n\n# end\n".encode()).decode()
REQUESTS: dict[str, list[str]] = {
    "default": [],
    "small": ["--cloud-type=s"],
    "large in a zone": ["--cloud-type=l", "--cloud-region=eastus-2"],
    "two regions": ["--cloud-region=eu-west,us-east"],
    "two zones": ["--cloud-region=eastus-3,eastus-1"],
    "several sizes": ["--cloud-type=Standard_D8s_v5,Standard_D32s_v5"],
    "a zone that is shut": ["--cloud-type=xl"],
    "spot": ["--cloud-spot"],
    "spot with a cap": ["--cloud-spot", "--cloud-spot-price=0.3", "--cloud-region=westus2-1"],
    "spot, then on demand": ["--cloud-spot=prefer", "--cloud-region=westus2-1"],
    "gpu": ["--cloud-type=m+t4", "--cloud-region=eu-west"],
    "gpus by number": ["--cloud-gpu=t4:4", "--cloud-region=eu-west"],
    "old gpu": ["--cloud-gpu=tesla", "--cloud-type=m", "--cloud-region=eu-west"],
    "gone gpu": ["--cloud-type=m+k80", "--cloud-region=eu-west"],
    "arm64": ["--cloud-type=Standard_D8ps_v5"],
    "not to be trusted": ["--cloud-type=Standard_D4s_v3"],
    "image": [f"--cloud-image={OURS}/Microsoft.Compute/images/ours"],
    "gallery": ["--cloud-image=/CommunityGalleries/g/Images/i/Versions/1.0.0"],
    "identities": [f"--cloud-permission-set={IDENTITY},{IDENTITY}2"],
    "disk": [
        "--cloud-hdd-size=500",
        f"--cloud-azure-disk-encryption-set={OURS}/Microsoft.Compute/diskEncryptionSets/disks",
    ],
    "tags": [
        f"--cloud-metadata=note={NASTY}",
        "--cloud-metadata=team=a=b, c",
        "--cloud-region=westus2-1",
    ],
    "subnet": [f"--cloud-azure-subnet={SUBNET}", "--cloud-azure-private"],
    "startup script": [f"--cloud-startup-script={SCRIPT}"],
    "short life": ["--max-lifetime=2h", "--start-timeout=5m"],
    "many": ["--count=20", "--single", "--labels=a b,ü"],
    "all that may be": [
        "--count=2",
        "--cloud-spot=prefer",
        "--no-retry",
        "--cloud-hdd-size=8",
        f"--cloud-startup-script={SCRIPT}",
        "--cloud-metadata=a=b",
    ],
}


def told(argv: list[str]) -> dict[str, Any]:
    """All that Azure and the machine get to know of a request."""
    asked = request("--cloud=azure", *argv)
    assert asked.cloud
    planned = plan.plan(asked.cloud)
    name = "cml-1" if asked.count == 1 else f"cml-1-{bootstrap.INSTANCE}"
    download = Download(url="https://forge.test/runner.tar.gz", sha256="0" * 64, version="2")
    spec: AgentSpec = bootstrap.spec_of(
        asked,
        name,
        Registration(token=Secret("canary-registration")),
        download,
        "https://api.github.com",
        None,
    )
    identities, _ = requests.identities_of(asked.cloud.permission_set)
    deletion = Deletion(
        {"api": "https://management.azure.com", "identities": list(identities)},
        None if identities else KEY,
    )
    data = fitting.user_data(spec, asked, plan.USER_DATA_LIMIT, deletion)
    machine = Machine(
        identity=Identity(name="cml-1", key="k"),
        user_data=b"the user data",
        tags={"Name": "cml-1", **asked.cloud.metadata},
    )
    described = IMAGES.get(tuple(planned.image.split(":")[:3]))  # type: ignore[arg-type]
    image = {"properties": max(described.items())[1]} if described else None
    skus = {
        place.region: [one for one in SKUS if place.region in one["locations"]]
        for place in planned.places
    }
    found = ladder.Facts(image=image, reference=planned.image, skus=skus)
    made = [
        requests.virtual_machine(one, machine, one.subnet or "SUBNET", "SECURITY", "ssh-rsa AAAA")
        for one in ladder.placements(planned, asked.cloud, found)
    ]
    network = [
        requests.group("westus2", machine.tags),
        requests.security_group("westus2", machine.tags, False),
        requests.network("westus2", machine.tags),
    ]
    files = {
        path: text
        for path, text in unpacked(data).items()
        if "/agent/" not in path and "systemd" not in path
    }
    return {
        "asked": argv,
        "plan": dataclasses.asdict(planned),
        "network": network,
        "made": made,
        "files": files,
    }


def test_golden_plans_requests_and_user_data() -> None:
    """Word for word."""
    assert len(REQUESTS) >= 25
    goldens.check(goldens.ROOT / "azure", {name: told(argv) for name, argv in REQUESTS.items()})
