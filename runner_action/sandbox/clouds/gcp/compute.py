"""Compute Engine, as far as a launch asks: images, zones, machine types, instances with
operations that take time and may fail, firewall rules.

Held to Google's own description by the tests, in what it takes and in what it says.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request

from runner_action.sandbox.clouds.gcp import rules as gcp_rules
from runner_action.sandbox.clouds.gcp.catalogue import (
    IMAGES,
    PROJECT,
    SERIAL_BYTES,
    ZONES,
    Refusal,
    aggregated,
    error,
    listed,
    missing_in_zone,
    paged,
)
from runner_action.sandbox.clouds.gcp.iam import Tokens, implied
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.machine.metadata import FakeMetadata
from runner_action.sandbox.served import Served

NUMBER = "314159265358"
Json = dict[str, Any]


@dataclass
class FakeGcp:
    """`steps`: how often an operation is looked at before it is done. With `machines` its
    instances live, and every call has to say whose it is."""

    steps: int = 1
    page: int = 500
    """Things that one answer lists at most."""
    machines: Machines | None = None
    metadata: FakeMetadata | None = None
    host: str = "127.0.0.1"
    instances: dict[tuple[str, str], Json] = field(default_factory=dict)
    firewalls: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, Json] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    """Permissions that the caller has not, such as `compute.instances.create`."""
    asked: list[str] = field(default_factory=list)
    """Permissions that were needed so far."""
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = Flask("compute")
        self._ids = itertools.count(4_000_000_000_000_000_001)
        self._lock = threading.RLock()
        self._left: dict[str, int] = {}
        self._by_request: dict[str, str] = {}
        self._born: dict[str, float] = {}
        self._to_delete: set[str] = set()
        """Ids of machines whose processes are to end first."""
        self._closed = threading.Event()
        base = "/compute/v1/projects/<project>"
        for rule, method, permission, view in (
            ("/global/images/family/<family>", "GET", "compute.images.getFromFamily", self._family),
            ("/global/images/<image>", "GET", "compute.images.get", self._image),
            ("/zones", "GET", "compute.zones.list", self._zones),
            (
                "/aggregated/machineTypes",
                "GET",
                "compute.machineTypes.list",
                lambda: listed("machineType", self.page),
            ),
            (
                "/aggregated/acceleratorTypes",
                "GET",
                "compute.acceleratorTypes.list",
                lambda: listed("acceleratorType", self.page),
            ),
            ("/aggregated/instances", "GET", "compute.instances.list", self._list),
            ("/zones/<zone>/instances", "POST", "compute.instances.create", self._insert),
            ("/zones/<zone>/instances/<name>", "GET", "compute.instances.get", self._get),
            ("/zones/<zone>/instances/<name>", "DELETE", "compute.instances.delete", self._delete),
            (
                "/zones/<zone>/instances/<name>/serialPort",
                "GET",
                "compute.instances.getSerialPortOutput",
                self._serial,
            ),
            (
                "/zones/<zone>/operations/<name>",
                "GET",
                "compute.zoneOperations.get",
                self._operation,
            ),
            ("/global/firewalls", "GET", "compute.firewalls.list", self._rules),
            ("/global/firewalls", "POST", "compute.firewalls.create", self._open),
            ("/global/firewalls/<name>", "DELETE", "compute.firewalls.delete", self._close),
        ):
            self.app.add_url_rule(
                base + rule, permission, self._guarded(permission, view), methods=[method]
            )
        self.tokens = Tokens(self.app)
        self.served = Served(self.app, "/compute/v1", host=self.host)
        self.url = self.served.url
        if self.machines:
            threading.Thread(target=self._watch, daemon=True).start()

    def actions(self) -> list[str]:
        """What it was asked: resource and verb."""
        return list(self.calls)

    def close(self) -> None:
        self._closed.set()
        self.served.close()

    def reset(self) -> None:
        """As new, at the same address."""
        asked = (self.denied, self.asked, self.calls, self.refusals, self.served.faults)
        for held in (
            self.instances,
            self.firewalls,
            self.operations,
            self._left,
            self._by_request,
            *asked,
        ):
            held.clear()
        self.steps = 1
        self.page = 500

    def refuse(
        self,
        code: str,
        status: int = 0,
        applies: Callable[[Json, str], bool] = lambda _body, _zone: True,
        **more: Any,
    ) -> None:
        self.refusals.append(Refusal(applies, code, status, **more))

    def alive(self) -> list[str]:
        """Instances that still cost money: a stopped one has its disk."""
        return sorted(name for _, name in self.instances)

    def deleting(self) -> list[str]:
        """Those whose deletion has been accepted, and is not done."""
        return sorted(
            key[1] for key, one in list(self.instances.items()) if one["id"] in self._to_delete
        )

    @property
    def key(self) -> dict[str, str]:
        """Of the launcher's account."""
        return self.tokens.key(self.url, PROJECT)

    # --- answers

    def _guarded(self, permission: str, view: Callable[..., Any]) -> Callable[..., Any]:
        def answer(project: str, **path: str) -> Any:
            if fault := self.served.fault():
                return fault
            if self.machines and (refused := self.tokens.refusal()):
                reason, message, status = refused
                return error(status, reason, message)
            self.calls.append(permission.removeprefix("compute."))
            if project not in (PROJECT, NUMBER) and not permission.startswith("compute.images"):
                return error(404, "notFound", f"The resource 'projects/{project}' was not found")
            needed = (
                [permission, *implied(permission, request.get_json(silent=True) or {}, PROJECT)]
                if project in (PROJECT, NUMBER)
                else []
            )
            self.asked += needed
            if missing := next((one for one in needed if one in self.denied), None):
                return error(
                    403, "forbidden", f"Required '{missing}' permission for 'projects/{project}'"
                )
            with self._lock:
                told = view(
                    **({"project": project} if permission.startswith("compute.images") else {}),
                    **path,
                )
            return self.served.fault(late=True) or told

        return answer

    def _url(self, path: str, project: str = PROJECT) -> str:
        return f"https://www.googleapis.com/compute/v1/projects/{project}/{path}"

    def _family(self, project: str, family: str) -> Any:
        if (project, family) not in IMAGES:
            return error(
                404,
                "notFound",
                f"The resource 'projects/{project}/global/images/family/{family}' was not found",
            )
        return self._image_of(project, *IMAGES[project, family])

    def _image(self, project: str, image: str) -> Any:
        found = self._known_image(f"projects/{project}/global/images/{image}")
        return found or error(
            404,
            "notFound",
            f"The resource 'projects/{project}/global/images/{image}' was not found",
        )

    def _image_of(self, project: str, name: str, architecture: str, size: str) -> Json:
        told = {
            "kind": "compute#image",
            "id": "1",
            "name": name,
            "status": "READY",
            "diskSizeGb": size,
            "architecture": architecture,
        }
        features = [] if name.startswith("bios") else [{"type": "UEFI_COMPATIBLE"}]
        return {
            **told,
            "guestOsFeatures": features,
            "selfLink": self._url(f"global/images/{name}", project),
        }

    def _known_image(self, path: str) -> Json | None:
        project, _, name = path.partition("projects/")[2].partition("/global/images/")
        return next(
            (
                self._image_of(project, *entry)
                for (owner, _), entry in IMAGES.items()
                if owner == project and entry[0] == name
            ),
            None,
        )

    def _zones(self) -> Json:
        items = [
            {"kind": "compute#zone", "id": str(number), "name": name, "status": "UP"}
            for number, name in enumerate(ZONES, 1)
        ]
        here, more = paged(items, self.page)
        return {
            "kind": "compute#zoneList",
            "id": "zones",
            "items": here,
            "selfLink": self._url("zones"),
            **more,
        }

    # --- instances

    def _list(self) -> Any:
        wanted = gcp_rules.asked(
            r'labels\.([a-z0-9_-]+) = "([^"]*)"', "AND", request.args.get("filter", "")
        )
        if wanted is None:
            return error(
                400, "invalid", "Invalid value for field 'filter'. Invalid list filter expression."
            )
        found = [
            (zone, one)
            for (zone, _), one in sorted(self.instances.items())
            if set(wanted) <= set(one.get("labels", {}).items())
        ]
        return aggregated("instance", found, self.page)

    def _insert(self, zone: str) -> Any:
        body: Json = request.get_json()
        token = request.args.get("requestId", "")
        if token and token in self._by_request:
            return self.operations[self._by_request[token]]
        if wrong := gcp_rules.problem(
            body, token, self._known_image(body["disks"][0]["initializeParams"]["sourceImage"])
        ):
            return error(400, "invalid", wrong)
        if (zone, body["name"]) in self.instances:
            return error(
                409,
                "alreadyExists",
                f"The resource 'projects/{PROJECT}/zones/{zone}/instances/{body['name']}' already"
                " exists",
            )
        if missing := missing_in_zone(body, zone):
            return missing
        refusal = next(
            (one for one in self.refusals if one.times != 0 and one.applies(body, zone)), None
        )
        if refusal:
            refusal.times = refusal.times - 1 if refusal.times else refusal.times
            if refusal.status:
                return error(refusal.status, refusal.code, refusal.message)
        target = str(next(self._ids))
        if not refusal or refusal.leaves:
            self._make(zone, body, target)
        operation = self._begin(zone, "insert", body["name"], target, refusal)
        if token:
            self._by_request[token] = operation["name"]
        return operation

    def _make(self, zone: str, body: Json, identity: str) -> None:
        interfaces = []
        for number, asked in enumerate(body["networkInterfaces"]):
            public = [
                {**config, "kind": "compute#accessConfig", "natIP": "203.0.113.7"}
                for config in asked.get("accessConfigs", ())
            ]
            told = {
                "kind": "compute#networkInterface",
                "name": f"nic{number}",
                "networkIP": "10.0.0.2",
            }
            interfaces.append({**asked, **told, **({"accessConfigs": public} if public else {})})
        made = {
            "kind": "compute#instance",
            "id": identity,
            "creationTimestamp": "2026-11-23T12:00:00.000-00:00",
            "status": "RUNNING",
        }
        where = {
            "zone": self._url(f"zones/{zone}"),
            "machineType": self._url(body["machineType"]),
            "networkInterfaces": interfaces,
        }
        self.instances[zone, body["name"]] = {**body, **made, **where}
        if self.machines:
            self._boot(made["id"], zone, body)

    def _begin(
        self, zone: str, kind: str, name: str, target: str, refusal: Refusal | None = None
    ) -> Json:
        number = str(next(self._ids))
        operation: Json = {
            "kind": "compute#operation",
            "id": number,
            "name": f"operation-{number}",
            "operationType": kind,
            "status": "RUNNING" if self.steps else "DONE",
            "progress": 0,
            "zone": self._url(f"zones/{zone}"),
            "targetLink": self._url(f"zones/{zone}/instances/{name}"),
            "targetId": target,
            "selfLink": self._url(f"zones/{zone}/operations/operation-{number}"),
        }
        if refusal:
            operation["error"] = {
                "errors": [
                    {
                        "code": refusal.code,
                        "message": refusal.message,
                        "errorDetails": refusal.details,
                    }
                ]
            }
            status, words = (
                (503, "SERVICE UNAVAILABLE")
                if "EXHAUSTED" in refusal.code
                else (400, "BAD REQUEST")
            )
            operation |= {"httpErrorStatusCode": status, "httpErrorMessage": words}
        self.operations[operation["name"]] = operation
        self._left[operation["name"]] = self.steps
        return {
            key: value
            for key, value in operation.items()
            if self.steps == 0 or key not in ("error", "httpErrorStatusCode", "httpErrorMessage")
        }

    def _operation(self, zone: str, name: str) -> Any:
        if name not in self.operations:
            return error(404, "notFound", f"The resource '{name}' was not found")
        self._left[name] -= 1
        if self._left[name] <= 0:
            self.operations[name] |= {"status": "DONE", "progress": 100}
            return self.operations[name]
        return {
            key: value
            for key, value in self.operations[name].items()
            if key not in ("error", "httpErrorStatusCode", "httpErrorMessage")
        }

    def _found(self, zone: str, name: str) -> tuple[str, str] | None:
        """By name, or by id."""
        return next(
            (
                key
                for key, one in self.instances.items()
                if key[0] == zone and name in (key[1], one["id"])
            ),
            None,
        )

    def _get(self, zone: str, name: str) -> Any:
        key = self._found(zone, name)
        return (
            self.instances[key]
            if key
            else error(404, "notFound", f"The resource '{name}' was not found")
        )

    def _delete(self, zone: str, name: str) -> Any:
        key = self._found(zone, name)
        if not key:
            return error(404, "notFound", f"The resource '{name}' was not found")
        number = self.instances[key]["id"]
        if self.machines:
            self._end(self.instances[key])
        else:
            del self.instances[key]
        return self._begin(zone, "delete", key[1], number)

    def _serial(self, zone: str, name: str) -> Any:
        key = self._found(zone, name)
        if not key:
            return error(404, "notFound", f"The resource '{name}' was not found")
        number = self.instances[key]["id"]
        lives = self.machines and number in self.machines.living
        return {
            "kind": "compute#serialPortOutput",
            "contents": (
                self.machines.console(number, SERIAL_BYTES)
                if self.machines and lives
                else "Booting"
            ),
            "start": "0",
            "next": "7",
            "selfLink": self._url(f"zones/{zone}/instances/{name}/serialPort"),
        }

    # --- machines

    def _boot(self, number: str, zone: str, body: Json) -> None:
        """The machine is told of itself what Google's metadata service tells: of its service
        account only if it has one."""
        assert self.machines
        assert self.metadata
        about = {
            "instance/id": number,
            "instance/name": body["name"],
            "instance/zone": f"projects/{NUMBER}/zones/{zone}",
            "project/project-id": PROJECT,
        }
        for account in body.get("serviceAccounts", ()):
            about["instance/service-accounts/default/token"] = json.dumps(
                self.tokens.issue(account["scopes"])
            )
        self.metadata.fate(number).about = about
        given = {item["key"]: item["value"] for item in body["metadata"]["items"]}
        self._born[number] = time.monotonic()
        self.machines.boot(number, base64.b64decode(given["user-data"]))

    def preempt(self, number: str) -> None:
        """A spot machine that is taken is deleted when it is off, if its termination action
        says so."""
        with self._lock:
            ends = [
                one["id"]
                for one in self.instances.values()
                if one["scheduling"].get("instanceTerminationAction") == "DELETE"
            ]
            self._to_delete |= {number} & set(ends)

    def _end(self, one: Json) -> None:
        assert self.machines
        one["status"] = "STOPPING"
        self._to_delete.add(one["id"])
        self.machines.end(one["id"])

    def _watch(self) -> None:
        """A machine that powers itself off is stopped, and stays; Google deletes one that was
        told to, and one that has run for long enough."""
        assert self.machines
        while not self._closed.wait(0.05):
            with self._lock:
                for key, one in list(self.instances.items()):
                    number, longest = (
                        one["id"],
                        one["scheduling"].get("maxRunDuration", {}).get("seconds"),
                    )
                    if self.machines.runs(number):
                        if (
                            longest
                            and time.monotonic() - self._born[number]
                            > float(longest) * self.machines.timer_factor
                        ):
                            self._end(one)
                    elif number in self._to_delete:
                        del self.instances[key]
                    elif number in self.machines.living:
                        one["status"] = "TERMINATED"

    # --- firewall rules

    def _open(self) -> Any:
        body: Json = request.get_json()
        if not gcp_rules.NAME.fullmatch(body["name"]):
            return error(
                400, "invalid", f"Invalid value for field 'resource.name': '{body['name']}'."
            )
        if body["name"] in self.firewalls:
            return error(409, "alreadyExists", f"The resource '{body['name']}' already exists")
        self.firewalls[body["name"]] = {
            **body,
            "kind": "compute#firewall",
            "id": "1",
            "creationTimestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        return {
            "kind": "compute#operation",
            "id": "1",
            "name": "operation-1",
            "operationType": "insert",
            "status": "RUNNING",
        }

    def _rules(self) -> Any:
        wanted = gcp_rules.asked(
            r'(description|name) = "([^"]+)"', "AND", request.args.get("filter", "")
        )
        if wanted is None:
            return error(
                400, "invalid", "Invalid value for field 'filter'. Invalid list filter expression."
            )
        items = [
            one for one in self.firewalls.values() if all(one[key] == text for key, text in wanted)
        ]
        here, more = paged(items, self.page)
        return {
            "kind": "compute#firewallList",
            "id": "rules",
            "items": here,
            "selfLink": self._url("global/firewalls"),
            **more,
        }

    def _close(self, name: str) -> Any:
        if not self.firewalls.pop(name, None):
            return error(404, "notFound", f"The resource '{name}' was not found")
        return {
            "kind": "compute#operation",
            "id": "2",
            "name": "operation-2",
            "operationType": "delete",
            "status": "RUNNING",
        }
