"""Azure Resource Manager, as far as a launch asks: groups, networks, virtual machines whose
operations take time and may fail, images, sizes.

Held to Azure's own types by the tests, in what it takes and in what it says. Paths are read
whatever their case, as Azure does.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flask import Flask, Response, request

from runner_action.sandbox.clouds.azure import shelf as azure_shelf
from runner_action.sandbox.clouds.azure.entra import SCOPE, SUBSCRIPTION, Entra
from runner_action.sandbox.clouds.azure.rbac import Rights, Route, error, implied, refused
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.machine.metadata import FakeMetadata
from runner_action.sandbox.served import Served

Json = dict[str, Any]
GROUP = r"/resourcegroups/(?P<group>[^/]+)"
NETWORK, VM = (
    rf"{GROUP}/providers/microsoft\.network",
    rf"{GROUP}/providers/microsoft\.compute/virtualmachines",
)
VERSIONS = (
    r"/providers/microsoft\.compute/locations/[^/]+/publishers/([^/]+)"
    r"/artifacttypes/vmimage/offers/([^/]+)/skus/([^/]+)/versions"
)


@dataclass
class Refusal:
    """Creations that `applies` chooses end with an error, `times` times (None: always): in the
    answer with `status`, else in their operation."""

    applies: Callable[[Json], bool]
    code: str
    status: int = 0
    message: str = "No."
    times: int | None = None


@dataclass
class FakeAzure:
    """`steps`: how often an operation is looked at before it is done. With `machines` its instances
    live. Every call has to say whose it is, and is refused if `rights` do not grant that principal
    what the address asks for."""

    tls: tuple[str, str]
    """Files of certificate and key: Azure's SDK gives its token to nobody else."""
    steps: int = 1
    machines: Machines | None = None
    metadata: FakeMetadata | None = None
    host: str = "127.0.0.1"
    groups: dict[str, Json] = field(default_factory=dict)
    things: dict[str, Json] = field(default_factory=dict)
    """What is in groups, by its path in lower case."""
    refusals: list[Refusal] = field(default_factory=list)
    rights: Rights = field(default_factory=Rights)
    spoilt: set[str] = field(default_factory=set)
    """Kinds of things that are accepted and never become whole."""
    asked: list[str] = field(default_factory=list)
    """Actions that were needed so far."""
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Flask(__name__)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._numbers = itertools.count(1)
        self._left: dict[str, int] = {}
        self._failed: dict[str, Json] = {}
        self._to_delete: set[str] = set()
        self._signature = secrets.token_urlsafe()
        self.entra = Entra(self.app)
        self.app.add_url_rule(
            f"/subscriptions/{SUBSCRIPTION}/<path:rest>",
            "arm",
            self._arm,
            methods=["GET", "PUT", "POST", "DELETE"],
        )
        self.app.add_url_rule("/console/<number>", "console", self._blob)
        resource = "Microsoft.Resources/subscriptions/resourceGroups"
        compute = "Microsoft.Compute"
        self._routes = [
            Route(method, re.compile(pattern, re.I), action, view)
            for method, pattern, action, view in (
                ("GET", "/resourcegroups", f"{resource}/read", self._list_groups),
                ("PUT", GROUP, f"{resource}/write", self._put_group),
                ("DELETE", GROUP, f"{resource}/delete", self._delete_group),
                ("GET", GROUP, f"{resource}/read", lambda group: self.groups[group]),
                (
                    "GET",
                    r"/operationresults/(.+)",
                    "Microsoft.Resources/subscriptions/operationresults/read",
                    self._result,
                ),
                (
                    "GET",
                    rf"{GROUP}/providers/microsoft\.authorization/permissions",
                    "Microsoft.Authorization/permissions/read",
                    self._permissions,
                ),
                (
                    "GET",
                    r"/providers/microsoft\.compute/skus",
                    f"{compute}/skus/read",
                    azure_shelf.skus,
                ),
                (
                    "GET",
                    VERSIONS,
                    f"{compute}/locations/publishers/artifacttypes/offers/skus/versions/read",
                    azure_shelf.versions,
                ),
                (
                    "GET",
                    rf"{VERSIONS}/(.+)",
                    f"{compute}/locations/publishers/artifacttypes/offers/skus/versions/read",
                    azure_shelf.image,
                ),
                (
                    "GET",
                    r"/providers/microsoft\.compute/locations/[^/]+/operations/(.+)",
                    f"{compute}/locations/operations/read",
                    self._operation,
                ),
                (
                    "GET",
                    r"/providers/microsoft\.compute/virtualmachines",
                    f"{compute}/virtualMachines/read",
                    self._all_machines,
                ),
                (
                    "GET",
                    VM,
                    f"{compute}/virtualMachines/read",
                    partial(self._listed, "virtualmachines"),
                ),
                (
                    "PUT",
                    rf"{VM}/(?P<name>[^/]+)",
                    f"{compute}/virtualMachines/write",
                    self._put_machine,
                ),
                ("GET", rf"{VM}/(?P<name>[^/]+)", f"{compute}/virtualMachines/read", self._machine),
                (
                    "POST",
                    rf"{VM}/(?P<name>[^/]+)/retrievebootdiagnosticsdata",
                    f"{compute}/virtualMachines/retrieveBootDiagnosticsData/action",
                    self._console,
                ),
                (
                    "PUT",
                    rf"{NETWORK}/networksecuritygroups/[^/]+",
                    "Microsoft.Network/networkSecurityGroups/write",
                    self._put_network,
                ),
                (
                    "GET",
                    rf"{NETWORK}/networksecuritygroups/[^/]+",
                    "Microsoft.Network/networkSecurityGroups/read",
                    self._get,
                ),
                (
                    "PUT",
                    rf"{NETWORK}/virtualnetworks/[^/]+",
                    "Microsoft.Network/virtualNetworks/write",
                    self._put_network,
                ),
                (
                    "GET",
                    rf"{NETWORK}/virtualnetworks/[^/]+",
                    "Microsoft.Network/virtualNetworks/read",
                    self._get,
                ),
                (
                    "GET",
                    rf"{NETWORK}/publicipaddresses",
                    "Microsoft.Network/publicIPAddresses/read",
                    partial(self._listed, "publicipaddresses"),
                ),
                (
                    "GET",
                    rf"{NETWORK}/networkinterfaces",
                    "Microsoft.Network/networkInterfaces/read",
                    partial(self._listed, "networkinterfaces"),
                ),
            )
        ]
        self.served = Served(self.app, "/subscriptions", self.tls, self.host)
        self.url = self.served.url
        if self.machines:
            threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self.served.close()

    def refuse(
        self,
        code: str,
        status: int = 0,
        applies: Callable[[Json], bool] = lambda _body: True,
        **more: Any,
    ) -> None:
        self.refusals.append(Refusal(applies, code, status, **more))

    def alive(self) -> list[str]:
        """Groups: whatever is in them."""
        return sorted(self.groups)

    def deleting(self) -> list[str]:
        """Those whose deletion has been accepted, and is not done."""
        return sorted(set(self.groups) & self._to_delete)

    def actions(self) -> list[str]:
        """What it was asked: kind and verb."""
        return list(self.calls)

    # --- the switchboard

    def _arm(self, rest: str) -> Any:
        if fault := self.served.fault():
            return fault
        principal = self.entra.who(request.headers.get("Authorization", ""))
        if principal is None:
            return error(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if not request.args.get("api-version"):
            return error(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        for route in self._routes:
            match = route.pattern.fullmatch(f"/{rest}")
            if match and route.method == request.method:
                return self._answer(principal, route, match)
        return error(
            404,
            "InvalidResourceType",
            f"The resource type could not be found for {request.method} {rest}.",
        )

    def _answer(self, principal: str, route: Route, match: re.Match[str]) -> Any:
        group, view = match.groupdict().get("group"), route.view
        asked, where = (route.action, request.path), f"{SCOPE}/resourceGroups/{group}"
        needed = [asked, *implied(route.action, request.get_json(silent=True) or {}, where)]
        self.asked += [action for action, _ in needed]
        self.calls.append(route.action.partition("/")[2].removeprefix("subscriptions/"))
        if missing := next((one for one in needed if not self.rights.may(principal, *one)), None):
            return refused(principal, asked, missing)
        with self._lock:
            known = next(
                (name for name in self.groups if group and name.lower() == group.lower()), None
            )
            if (
                group
                and known is None
                and not (request.method == "PUT" and view == self._put_group)
            ):
                return error(
                    404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found."
                )
            told = (
                view(**{**match.groupdict(), "group": known or group})
                if match.groupdict()
                else view(*match.groups())
            )
        return self.served.fault(late=True) or told

    # --- groups

    def _list_groups(self) -> Json:
        match = re.fullmatch(
            r"tagName eq '(.*)' and tagValue eq '(.*)'", request.args.get("$filter", "")
        )
        found = [
            one
            for one in self.groups.values()
            if not match or one.get("tags", {}).get(match[1]) == match[2]
        ]
        return {"value": found}

    def _put_group(self, group: str) -> Any:
        made = {
            "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}",
            "name": group,
            "type": "Microsoft.Resources/resourceGroups",
        }
        fresh = group not in self.groups
        self.groups[group] = {
            **made,
            **request.get_json(),
            "properties": {"provisioningState": "Succeeded"},
        }
        return self.groups[group], 201 if fresh else 200

    def _delete_group(self, group: str) -> Any:
        machines = self._of(group, "virtualmachines")
        if self.machines and any(self.machines.runs(one["properties"]["vmId"]) for one in machines):
            self.groups[group]["properties"]["provisioningState"] = "Deleting"
            self._to_delete.add(group)
            for one in machines:
                self.machines.end(one["properties"]["vmId"])
        else:
            self._remove(group)
        where = f"{self.url}{SCOPE}/operationresults/{group}?api-version=2021-04-01"
        return Response(status=202, headers={"Location": where, "Retry-After": "0"})

    def _result(self, group: str) -> Any:
        """Of a deletion."""
        return Response(status=202 if group in self._to_delete else 200)

    def _permissions(self, group: str) -> Json:
        """What the caller himself may in that group."""
        principal = self.entra.who(request.headers["Authorization"])
        assert principal
        return {"value": self.rights.permissions(principal, f"{SCOPE}/resourceGroups/{group}")}

    def _remove(self, group: str) -> None:
        del self.groups[group]
        for path in [path for path in self.things if f"/resourcegroups/{group.lower()}/" in path]:
            del self.things[path]

    def _listed(self, kind: str, group: str) -> Json:
        return {"value": self._of(group, kind)}

    def _of(self, group: str, kind: str) -> list[Json]:
        return [
            one
            for path, one in self.things.items()
            if f"/resourcegroups/{group.lower()}/" in path and path.split("/")[-2] == kind
        ]

    # --- networks

    def _put_network(self, group: str) -> Any:
        path, body = request.path, request.get_json()
        made: Json = {
            "id": path,
            "name": path.rpartition("/")[2],
            "type": "/".join(path.split("/")[-3:-1]),
            **body,
            "etag": 'W/"1"',
        }
        made["properties"] = {
            **body["properties"],
            "provisioningState": "Updating" if self.steps else "Succeeded",
        }
        if "subnets" in made["properties"]:
            subnets = made["properties"]["subnets"]
            made["properties"]["subnets"] = [
                {**one, "id": f"{path}/subnets/{one['name']}"} for one in subnets
            ]
        self.things[path.lower()] = made
        self._left[path.lower()] = self.steps
        return made, 201

    def _get(self, group: str) -> Any:
        path = request.path.lower()
        if path not in self.things:
            return error(404, "ResourceNotFound", f"The Resource '{request.path}' was not found.")
        self._left[path] -= 1
        if self._left[path] <= 0:
            self.things[path]["properties"]["provisioningState"] = (
                "Failed" if path.split("/")[-2] in self.spoilt else "Succeeded"
            )
        return self.things[path]

    # --- machines

    def _put_machine(self, group: str, name: str) -> Any:
        path, body = request.path.lower(), request.get_json()
        if path in self.things:
            before = self.things[path]["properties"]["osProfile"]["linuxConfiguration"]
            if before != body["properties"]["osProfile"]["linuxConfiguration"]:
                return error(
                    409,
                    "PropertyChangeNotAllowed",
                    "Changing property 'linuxConfiguration.ssh.publicKeys' is not allowed.",
                )
            return self.things[path]
        refusal = next((one for one in self.refusals if one.times != 0 and one.applies(body)), None)
        if refusal:
            refusal.times = refusal.times - 1 if refusal.times else refusal.times
            if refusal.status:
                return error(refusal.status, refusal.code, refusal.message)
        made = self._make(group, name, body, failed=refusal is not None)
        number = str(next(self._numbers))
        self._left[number] = self.steps
        if refusal:
            self._failed[number] = {"code": refusal.code, "message": refusal.message}
        where = (
            f"{self.url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"
            f"/locations/{body['location']}/operations/{number}?api-version=2026-04-01"
        )
        return Response(
            json.dumps(made),
            201,
            {"Azure-AsyncOperation": where, "Retry-After": "0"},
            content_type="application/json",
        )

    def _make(self, group: str, name: str, body: Json, failed: bool) -> Json:
        number, now = (
            str(uuid.uuid4()),
            {
                "provisioningState": "Failed" if failed else "Succeeded",
                "timeCreated": "2026-11-23T12:00:00.000Z",
            },
        )
        properties = {key: value for key, value in body["properties"].items() if key != "osProfile"}
        profile = {
            key: value
            for key, value in body["properties"]["osProfile"].items()
            if key != "customData"
        }
        made = {
            "id": request.path,
            "name": name,
            "type": "Microsoft.Compute/virtualMachines",
            **body,
        }
        made["properties"] = {**properties, "osProfile": profile, "vmId": number, **now}
        self.things[request.path.lower()] = made
        where = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Network"
        for card in body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
            for ip in card["properties"]["ipConfigurations"]:
                if public := ip["properties"].get("publicIPAddressConfiguration"):
                    self._thing(
                        f"{where}/publicIPAddresses/{public['name']}",
                        body,
                        {"ipAddress": azure_shelf.ADDRESS},
                    )
            inside = [
                {"name": "ip", "properties": {"privateIPAddress": "10.0.0.4", "primary": True}}
            ]
            self._thing(
                f"{where}/networkInterfaces/{card['name']}", body, {"ipConfigurations": inside}
            )
        if self.machines and not failed:
            self._boot(number, group, body)
        return made

    def _thing(self, path: str, body: Json, properties: Json) -> None:
        made = {
            "id": path,
            "name": path.rpartition("/")[2],
            "location": body["location"],
            "properties": {**properties, "provisioningState": "Succeeded"},
        }
        self.things[path.lower()] = made

    def _boot(self, number: str, group: str, body: Json) -> None:
        assert self.machines
        assert self.metadata
        about = {
            "subscriptionId": SUBSCRIPTION,
            "resourceGroupName": group,
            "vmId": number,
            "location": body["location"],
        }
        self.metadata.fate(number).about["azure"] = json.dumps(about)
        for identity in body.get("identity", {}).get("userAssignedIdentities", {}):
            token = {"access_token": self.entra.issue(identity), "token_type": "Bearer"}
            self.metadata.fate(number).about[identity] = json.dumps(token)
        self.machines.boot(number, base64.b64decode(body["properties"]["osProfile"]["customData"]))

    def _machine(self, group: str, name: str) -> Any:
        found = self.things.get(request.path.lower())
        if not found:
            return error(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.Compute/virtualMachines/{name}' under resource group"
                f" '{group}' was not found.",
            )
        return self._with_view(found) if request.args.get("$expand") else found

    def _with_view(self, one: Json) -> Json:
        state = "PowerState/stopped" if self._stopped(one) else "PowerState/running"
        view = {
            "statuses": [
                {"code": "ProvisioningState/succeeded", "level": "Info"},
                {"code": state, "level": "Info"},
            ]
        }
        return {**one, "properties": {**one["properties"], "instanceView": view}}

    def _stopped(self, one: Json) -> bool:
        number = one["properties"]["vmId"]
        return bool(
            self.machines and number in self.machines.living and not self.machines.runs(number)
        )

    def _all_machines(self) -> Json:
        return {
            "value": [
                self._with_view(one)
                for path, one in self.things.items()
                if "/virtualmachines/" in path
            ]
        }

    def _operation(self, number: str) -> Any:
        self._left[number] -= 1
        if self._left[number] > 0:
            return Response(
                json.dumps({"name": number, "status": "InProgress"}),
                200,
                {"Retry-After": "0"},
                content_type="application/json",
            )
        if number in self._failed:
            return {"name": number, "status": "Failed", "error": self._failed[number]}
        return {"name": number, "status": "Succeeded"}

    def _console(self, group: str, name: str) -> Any:
        found = self.things.get(request.path.rpartition("/")[0].lower())
        if not found:
            return error(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.Compute/virtualMachines/{name}' was not found.",
            )
        where = f"{self.url}/console/{found['properties']['vmId']}"
        return {"serialConsoleLogBlobUri": f"{where}?sig={self._signature}"}

    def _blob(self, number: str) -> Any:
        """Of a storage account: whoever has the signed address may read it."""
        if request.args.get("sig") != self._signature:
            return error(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        return self.machines.console(number) if self.machines else "Booting"

    def _watch(self) -> None:
        """A machine that powers itself off is stopped, and costs on; a group that is being
        deleted goes when its machines have."""
        assert self.machines
        while not self._closed.wait(0.05):
            with self._lock:
                for group in list(self._to_delete & set(self.groups)):
                    if not any(
                        self.machines.runs(one["properties"]["vmId"])
                        for one in self._of(group, "virtualmachines")
                    ):
                        self._to_delete.discard(group)
                        self._remove(group)
