"""What a machine finds of its cloud while it boots: DMI strings, metadata service, provisioning
disc, as far as cloud-init asks for it.

What tells a machine of its end is the embedded world's own service
(`sandbox/machine/metadata.py`); the rest is here. One machine at a time: the newest one, whose
`id` and user data are answered with.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, make_server

from runner_action.sandbox.machine.metadata import FakeMetadata
from tests.boot import walls

SERVICE, WIRE_SERVER = "169.254.169.254", "168.63.129.16"
MAC = "52:54:00:12:34:56"
"""QEMU's for the first card."""
AZURE_VM = "a1b2c3d4-0000-4000-8000-000000000001"
GOAL = """<?xml version="1.0" encoding="utf-8"?><GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation><Machine/>
<Container><ContainerId>c-1</ContainerId><RoleInstanceList><RoleInstance><InstanceId>i-1</InstanceId><State>Started</State>
<Configuration/></RoleInstance></RoleInstanceList></Container></GoalState>"""  # noqa: E501
Tree = dict[str, Any]


@dataclass
class Guest:
    """The machine that is asked about."""

    id: str
    user_data: bytes


def ec2_options(instance: str) -> list[str]:
    """What EC2's firmware says of itself.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html"""
    uuid = "ec2a1b2c-0000-4000-8000-000000000001"
    system = f"type=1,manufacturer=Amazon EC2,product=t3.small,uuid={uuid},serial={uuid}"
    return [
        "-smbios",
        "type=0,vendor=Amazon EC2",
        "-smbios",
        system,
        "-smbios",
        f"type=2,manufacturer=Amazon EC2,asset={instance}",
    ]


def gce_options(_: str) -> list[str]:
    system = (
        "type=1,manufacturer=Google,product=Google Compute"
        " Engine,serial=GoogleCloud-0123456789ABCDEF0123456789ABCDEF"
    )
    return ["-smbios", "type=0,vendor=Google", "-smbios", system]


def azure_options(_: str) -> list[str]:
    """By the chassis' tag cloud-init knows Azure.
    https://github.com/canonical/cloud-init/blob/main/tools/ds-identify"""
    system = f"type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,uuid={AZURE_VM}"
    return [
        "-smbios",
        system,
        "-smbios",
        "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77",
    ]


def azure_disc(user_data: bytes) -> dict[str, str]:
    """What is on the provisioning disc.
    https://learn.microsoft.com/azure/virtual-machines/linux/provisioning"""
    given = {
        "ConfigurationSetType": "LinuxProvisioningConfiguration",
        "HostName": "train",
        "UserName": "azureuser",
        "DisableSshPasswordAuthentication": "true",
        "CustomData": base64.b64encode(user_data).decode(),
    }
    settings = {
        "KmsServerHostname": "kms.core.windows.net",
        "ProvisionGuestAgent": "false",
        "PreprovisionedVm": "false",
    }
    inside, platform = (
        "".join(f"<wa:{name}>{text}</wa:{name}>" for name, text in one.items())
        for one in (given, settings)
    )
    sections = (
        "<wa:ProvisioningSection><wa:Version>1.0</wa:Version><wa:LinuxProvisioningConfigurationSet>"
        f"{inside}</wa:LinuxProvisioningConfigurationSet></wa:ProvisioningSection>"
        "<wa:PlatformSettingsSection><wa:Version>1.0</wa:Version>"
        f"<wa:PlatformSettings>{platform}</wa:PlatformSettings></wa:PlatformSettingsSection>"
    )
    spaces = (
        'xmlns="http://schemas.dmtf.org/ovf/environment/1"'
        ' xmlns:wa="http://schemas.microsoft.com/windowsazure"'
    )
    return {
        "ovf-env.xml": (
            f'<?xml version="1.0" encoding="utf-8"?><Environment {spaces}>{sections}</Environment>'
        )
    }


def ec2_tree(guest: Guest) -> Tree:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html"""
    card = {
        "device-number": "0",
        "local-ipv4s": "10.0.2.15",
        "mac": MAC,
        "subnet-ipv4-cidr-block": "10.0.2.0/24",
        "interface-id": "eni-0123456789abcdef0",
    }
    return {
        "ami-id": "ami-aaaaaaaaaaaaaaaaa",
        "hostname": "ip-10-0-2-15.ec2.internal",
        "instance-id": guest.id,
        "instance-life-cycle": "on-demand",
        "instance-type": "t3.small",
        "local-hostname": "ip-10-0-2-15.ec2.internal",
        "local-ipv4": "10.0.2.15",
        "mac": MAC,
        "network": {"interfaces": {"macs": {MAC: card}}},
        "placement": {"availability-zone": "us-west-1a", "region": "us-west-1"},
        "block-device-mapping": {"ami": "/dev/vda", "root": "/dev/vda"},
    }


class MetadataService:
    """Answers at the address that all three clouds share, and at Azure's wire server. `asked`:
    method and path of what cloud-init and the agent wanted."""

    def __init__(self, notices: FakeMetadata) -> None:
        self.notices, self.asked = notices, list[tuple[str, str]]()
        self.guest = Guest("", b"")
        self.ready: list[str] = []
        """What machines have reported to the wire server."""
        app = Flask("clouds")
        app.add_url_rule("/<version>/meta-data/", "root", self._ec2, defaults={"path": ""})
        app.add_url_rule("/<version>/meta-data/<path:path>", "ec2", self._ec2)
        app.add_url_rule("/<version>/user-data", "user-data", self._user_data)
        app.add_url_rule(
            "/<version>/dynamic/instance-identity/",
            "documents",
            lambda version: "document" if self._with_token() else ("", 401),
        )
        app.add_url_rule(
            "/<version>/dynamic/instance-identity/document", "document", self._document
        )
        app.add_url_rule("/computeMetadata/v1/<path:path>", "gce", self._gce)
        app.add_url_rule("/metadata/instance", "azure", self._azure)
        app.add_url_rule("/machine", "health", self._wire, methods=["GET", "POST"])
        app.add_url_rule("/machine/", "goal", self._wire, methods=["GET", "POST"])
        app.add_url_rule(walls.PATH, "walls", lambda: walls.SCRIPT)
        self._app = app
        self._servers: list[BaseWSGIServer] = [
            make_server(host, 80, self, threaded=True) for host in (SERVICE, WIRE_SERVER)
        ]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.asked.append((environ["REQUEST_METHOD"], path))
        if any(
            part in path
            for part in (
                "/api/token",
                "/spot/",
                "/events/",
                "/preempted",
                "/scheduledevents",
                "/instance/compute",
                "/metadata/identity/",
            )
        ):
            return self.notices.app({**environ, "PATH_INFO": f"/{self.guest.id}{path}"}, start)
        return self._app(environ, start)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # --- EC2

    def _with_token(self) -> bool:
        return self.notices.knows(self.guest.id, request.headers.get("X-aws-ec2-metadata-token"))

    def _ec2(self, version: str, path: str) -> Any:
        """A folder is answered with its list, folders in it with a slash."""
        if not self._with_token():
            return "", 401
        found: Any = ec2_tree(self.guest)
        for part in path.strip("/").split("/") if path.strip("/") else ():
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            return "", 404
        text = (
            "\n".join(name + "/" * isinstance(value, dict) for name, value in found.items())
            if isinstance(found, dict)
            else found
        )
        return Response(text, content_type="text/plain")

    def _user_data(self, version: str) -> Any:
        return (
            Response(self.guest.user_data, content_type="application/octet-stream")
            if self._with_token()
            else ("", 401)
        )

    def _document(self, version: str) -> Any:
        if not self._with_token():
            return "", 401
        about = {
            "instanceId": self.guest.id,
            "region": "us-west-1",
            "availabilityZone": "us-west-1a",
            "accountId": "123456789012",
        }
        return {
            **about,
            "instanceType": "t3.small",
            "architecture": "x86_64",
            "imageId": "ami-aaaaaaaaaaaaaaaaa",
            "version": "2017-09-30",
        }

    # --- Google Compute Engine

    def _gce(self, path: str) -> Any:
        """https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys; binary user
        data is given in Base64."""
        if request.headers.get("Metadata-Flavor") != "Google" or request.headers.get(
            "X-Forwarded-For"
        ):
            return "", 403
        given = {
            "user-data": base64.b64encode(self.guest.user_data).decode(),
            "user-data-encoding": "base64",
        }
        about = self.notices.fate(self.guest.id).about
        if path in about:
            return Response(
                about[path], headers={"Metadata-Flavor": "Google"}, content_type="application/json"
            )
        instance = {
            "id": int(self.guest.id),
            "zone": about["instance/zone"],
            "hostname": f"{about['instance/name']}.c.train.internal",
            "attributes": given,
        }
        found: Any = {
            "instance": {**instance, "guest-attributes": {}},
            "project": {"attributes": {}, "project-id": about["project/project-id"]},
        }
        for part in path.strip("/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            return "", 404
        return Response(
            json.dumps(found) if isinstance(found, dict) else str(found),
            headers={"Metadata-Flavor": "Google"},
            content_type="application/json",
        )

    # --- Azure

    def _azure(self) -> Any:
        """https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service"""
        if (
            request.headers.get("Metadata") != "true"
            or request.headers.get("X-Forwarded-For")
            or not request.args.get("api-version")
        ):
            return "", 400
        person = {
            "adminUsername": "azureuser",
            "computerName": "train",
            "disablePasswordAuthentication": "true",
        }
        place = {
            "location": "westeurope",
            "resourceGroupName": "train",
            "subscriptionId": AZURE_VM,
            "zone": "",
            "vmSize": "Standard_D8s_v5",
        }
        compute = {
            "vmId": AZURE_VM,
            "name": "train",
            "osProfile": person,
            "publicKeys": [],
            "ppsType": "None",
            "userData": "",
            **place,
        }
        address = {
            "ipAddress": [{"privateIpAddress": "10.0.2.15", "publicIpAddress": ""}],
            "subnet": [{"address": "10.0.2.0", "prefix": "24"}],
        }
        return {
            "compute": compute,
            "network": {
                "interface": [
                    {
                        "ipv4": address,
                        "ipv6": {"ipAddress": []},
                        "macAddress": MAC.replace(":", "").upper(),
                    }
                ]
            },
        }

    def _wire(self) -> Any:
        """The wire server: a goal, and who has reached it."""
        if request.method == "POST":
            self.ready.append(request.get_data(as_text=True))
            return ""
        return Response(GOAL, content_type="text/xml")
