"""moto's EC2 over HTTP, made stricter where moto lets nonsense pass, and with instances that
live: as local processes.

Every call is recorded; any can be refused or delayed. What an instance runs is the user data
that EC2 stored.
"""

from __future__ import annotations

import base64
import io
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode
from xml.sax.saxutils import escape

# Without these moto takes any image, key and type, and reads a thousand old images for each region.
# To be set before it is imported.
os.environ.update(
    MOTO_ENABLE_AMI_VALIDATION="1",
    MOTO_ENABLE_KEYPAIR_VALIDATION="1",
    MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="1",
)
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

from moto.backends import get_backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import StateReason
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from runner_action.sandbox.clouds.aws import fleet
from runner_action.sandbox.clouds.aws import rules as ec2_rules
from runner_action.sandbox.clouds.aws.consistency import Consistency
from runner_action.sandbox.machine.machines import Machines
from runner_action.sandbox.served import Between

ACCOUNT = "123456789012"
ONLOOKER = "onlooker"
"""The access key by which tests see everything at once."""
CANONICAL = "099720109477"
AMAZON = "898082745236"
REGION = (
    "<item><regionName>{0}</regionName><regionEndpoint>ec2.{0}.amazonaws.com</regionEndpoint>"
    "<optInStatus>opt-in-not-required</optInStatus></item>"
)
CONSOLE_BYTES = 64 * 1024
"""https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-console.html"""
SPOT_PRICE = b"0.084100"
MADE = {
    "CreateSecurityGroup": "<groupId>(.*?)</groupId>",
    "CreateLaunchTemplate": "<launchTemplate(?:Id|Name)>(.*?)</launchTemplate(?:Id|Name)>",
}
"""What an answer names that others do not know yet."""
Form = dict[str, str]
Answer = tuple[str, list[tuple[str, str]], bytes]


@dataclass
class Refusal:
    """Calls that `applies` chooses are answered with an error, `times` times (None: always)."""

    applies: Callable[[Form], bool]
    code: str
    status: int
    message: str
    times: int | None = None


@dataclass
class FakeEC2:
    """Its instances are `machines`."""

    machines: Machines
    host: str = "127.0.0.1"
    calls: list[Form] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    delays: dict[str, float] = field(default_factory=dict)
    lose_answers: dict[str, int] = field(default_factory=dict)
    """Action -> how many of its answers are lost on the way, after it was done."""
    stock: dict[tuple[str, ...], int] = field(default_factory=dict)
    """(type[, subnet], `spot` or `on-demand`), or (type,) -> how many machines there are. Of
    others there is no end."""
    forgetful: bool = False
    """A fleet that is asked for again is the same, but its instances are not listed a second
    time."""
    decoded: str = "{}"
    """What the token service reads in an encoded reason."""
    enabled: tuple[str, ...] = ("us-east-1", "us-west-1", "eu-west-1", "eu-central-1", "eu-north-1")
    """Regions of the account."""
    between: Between | None = None
    consistency: Consistency = field(default_factory=Consistency)

    def __post_init__(self) -> None:
        self._app = _moto()
        self._tokens: dict[str, tuple[Form, Answer]] = {}
        self._regions: dict[str, str] = {}
        """Of machines."""
        self._lock = threading.RLock()
        self._closed = threading.Event()
        get_backend("ec2").reset()
        self._server: BaseWSGIServer = make_server(self.host, 0, self.serve, threaded=True)
        self.url = f"http://{self.host}:{self._server.server_port}"
        # Asked to end, a server looks up once in its interval.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    # --- the switchboard

    def serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        return self.between(self, environ, start) if self.between else self(environ, start)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        form = {
            key: values[0]
            for key, values in parse_qs(body.decode("latin1"), keep_blank_values=True).items()
        }
        status, headers, content = self._answer(environ, body, form)
        if self.lose_answers.get(form.get("Action", ""), 0) > 0:
            self.lose_answers[form["Action"]] -= 1
            environ["werkzeug.socket"].shutdown(
                socket.SHUT_RDWR
            )  # the client sees the connection end without an answer
        start(status, headers)
        return [content]

    def _answer(self, environ: dict[str, Any], body: bytes, form: Form) -> Answer:
        action, region = form.get("Action", ""), _region(environ)
        if not action:  # another service than EC2, in JSON
            self.calls.append(
                {
                    "Action": environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2],
                    "region": region,
                }
            )
            return self._ask_moto(environ, body)
        self.calls.append({**form, "region": region})
        self._shelve(region)
        time.sleep(self.delays.get(action, 0))
        if refused := self._refused({**form, "region": region}):
            return refused
        unknown = None if _is_onlooker(environ) else self.consistency.problem(form)
        if problem := ec2_rules.problem(form) or unknown:
            return _error(problem[0], 400, problem[1])
        if action in ("RunInstances", "CreateFleet"):
            return self._create(environ, form, region)
        if action == "TerminateInstances":
            return self._terminate(environ, body, form)
        if own := self._own_answer(form):
            return own
        answer = self._ask_moto(environ, body)
        if _is_onlooker(environ):
            return answer
        if action in MADE and answer[0].startswith("200"):
            self._new(environ, *re.findall(MADE[action], answer[2].decode()))
        return _text(self.consistency.listed(form, _priced(answer[2])), answer[0])

    def _own_answer(self, form: Form) -> Answer | None:
        """To what moto does not answer, or not as EC2."""
        action = form["Action"]
        if action == "DecodeAuthorizationMessage":
            return _xml(
                action,
                f"<DecodedMessage>{escape(self.decoded)}</DecodedMessage>",
                "https://sts.amazonaws.com/doc/2011-06-15/",
            )
        if action == "GetConsoleOutput" and form.get("InstanceId") in self.machines.living:
            return _console(
                form["InstanceId"], self.machines.console(form["InstanceId"], CONSOLE_BYTES)
            )
        if action == "DescribeRegions":
            return _xml(
                action,
                f"<regionInfo>{''.join(REGION.format(one) for one in self.enabled)}</regionInfo>",
            )
        if action == "CreateTags" and form.get("ResourceId.1", "").startswith("sir-"):
            return _xml(
                action, "<return>true</return>"
            )  # moto has none for spot machines of RunInstances
        return None

    def _new(self, environ: dict[str, Any], *names: str) -> None:
        if not _is_onlooker(environ):
            self.consistency.new(*names)

    def _terminate(self, environ: dict[str, Any], body: bytes, form: Form) -> Answer:
        with self._lock:  # moto lists an instance before we have started it
            answer = self._ask_moto(environ, body)
            if answer[0].startswith("200"):
                for key in (key for key in form if key.startswith("InstanceId.")):
                    self.machines.end(form[key])
        return answer

    def _ask_moto(self, environ: dict[str, Any], body: bytes) -> Answer:
        told: list[Any] = []
        environ = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        content = b"".join(
            self._app(
                environ, lambda status, headers, _exc_info=None: told.extend([status, headers])
            )
        )
        return told[0], told[1], content

    def _refused(self, form: Form) -> Answer | None:
        for refusal in self.refusals:
            if refusal.times != 0 and refusal.applies(form):
                refusal.times = refusal.times - 1 if refusal.times else refusal.times
                return _error(refusal.code, refusal.status, refusal.message)
        return None

    def _create(self, environ: dict[str, Any], form: Form, region: str) -> Answer:
        """What EC2 does and moto does not: keeps the client's token."""
        with self._lock:
            token = form.get("ClientToken", "")
            if token in self._tokens:
                before, answer = self._tokens[token]
                if before == form:
                    return (
                        _xml("CreateFleet", "<fleetId>fleet-1</fleetId>")
                        if self.forgetful
                        else self._as_it_is_now(answer, region)
                    )
                return _error(
                    "IdempotentParameterMismatch",
                    400,
                    "The request with this client token had other parameters.",
                )
            answer = (
                self._run_instances(environ, form, region)
                if form["Action"] == "RunInstances"
                else self._create_fleet(environ, form, region)
            )
            if token and answer[0].startswith("200"):
                self._tokens[token] = (form, answer)
        return answer

    def _run_instances(self, environ: dict[str, Any], form: Form, region: str) -> Answer:
        """It also refuses what does not fit together, has no more machines than there are,
        and starts them."""
        if problem := ec2_rules.misfit(form, get_backend("ec2")[ACCOUNT][region]):
            return _error(problem[0], 400, problem[1])
        kind, spot = (
            form["InstanceType"],
            ("spot" if form.get("InstanceMarketOptions.MarketType") == "spot" else "on-demand"),
        )
        pool = next(
            (
                pool
                for pool in ((kind, form.get("SubnetId", ""), spot), (kind, spot), (kind,))
                if pool in self.stock
            ),
            None,
        )
        wanted = (
            int(form["MaxCount"]) if pool is None else min(int(form["MaxCount"]), self.stock[pool])
        )
        if wanted == 0:
            return _error(
                "InsufficientInstanceCapacity",
                500,
                f"We currently do not have sufficient {kind} capacity.",
            )
        if pool is not None:
            self.stock[pool] -= wanted
        known = set(self._instances(region))
        answer = self._ask_moto(
            environ, urlencode({**form, "MinCount": str(wanted), "MaxCount": str(wanted)}).encode()
        )
        for instance in sorted(set(self._instances(region)) - known):
            self._instances(region)[instance].client_token = form.get("ClientToken", "")
            self._new(environ, instance)
            if spot == "spot":
                request_id = f"sir-{instance[-8:]}"
                self._instances(region)[instance].spot_instance_request_id = request_id
                self._new(environ, request_id)
            self._boot(instance, region)
        born = re.sub(
            rb"(<instanceState>\s*<code>)16(</code>\s*<name>)running",
            rb"\g<1>0\g<2>pending",
            answer[2],
        )
        return _text(born, answer[0])

    def _create_fleet(self, environ: dict[str, Any], form: Form, region: str) -> Answer:
        backend, name = get_backend("ec2")[ACCOUNT][region], fleet.template_name(form)
        if name not in backend.launch_template_name_to_ids:
            return _error(
                "InvalidLaunchTemplateName.NotFoundException",
                400,
                f"The specified launch template, with template name {name}, does not exist.",
            )
        zones = {
            pool["SubnetId"]: backend.get_subnet(pool["SubnetId"]).availability_zone
            for pool in fleet.overrides(form)
        }
        asked = [(pool["InstanceType"], zones[pool["SubnetId"]]) for pool in fleet.overrides(form)]
        if len(set(asked)) < len(asked):
            return _error(
                "InvalidFleetConfiguration",
                400,
                "The fleet configuration contains duplicate instance pools",
            )
        template = backend.get_launch_template_by_name(name)
        known = set(self._instances(region))
        data = template.get_version(1).data
        groups = {f"GroupId.{at}": group for at, group in enumerate(data["SecurityGroupIds"])}
        unknown = self.consistency.problem({"Action": "CreateFleet", **groups})

        def launched(pool: Form) -> Answer:
            if unknown:  # known to the call, but not to what starts its machines
                return _error(unknown[0], 400, unknown[1])
            refused = self._refused({**pool, "region": region})
            return refused or self._run_instances(environ, pool, region)

        content = fleet.fill(form, data, launched)
        # EC2 itself says where an instance comes from; nobody can change that.
        origin = {"aws:ec2launchtemplate:id": template.id, "aws:ec2launchtemplate:version": "1"}
        for instance in set(self._instances(region)) - known:
            backend.tags[instance].update(origin)
        return _text(content)

    def _as_it_is_now(self, answer: Answer, region: str) -> Answer:
        """The remembered answer, with the state the instance has by now."""
        status, _, content = answer
        for instance_id, instance in self._instances(region).items():
            if instance_id.encode() in content:
                content = re.sub(
                    rb"(<instanceState>.*?<name>)[a-z-]+",
                    rb"\g<1>" + instance.state.encode(),
                    content,
                    flags=re.S,
                )
        return _text(content, status)

    # --- images that are not twelve years old

    def _shelve(self, region: str) -> None:
        """Canonical's and AWS's current images, and a newer one of the same name that is
        somebody else's."""
        backend = get_backend("ec2")[ACCOUNT][region]
        if f"ami-{'a' * 17}" in backend.amis:
            return
        ubuntu = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-202611"
        learning = "Deep Learning {}Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 202611"
        for letter, architecture, name, owner, day in (
            ("a", "x86_64", ubuntu.format("amd64"), CANONICAL, 1),
            ("b", "arm64", ubuntu.format("arm64"), CANONICAL, 1),
            ("c", "x86_64", ubuntu.format("amd64"), "666666666666", 20),
            ("d", "x86_64", learning.format(""), AMAZON, 6),
            ("e", "arm64", learning.format("ARM64 "), AMAZON, 6),
        ):
            backend.amis[f"ami-{letter * 17}"] = Ami(
                backend,
                f"ami-{letter * 17}",
                name=f"{name}{day:02}",
                owner_id=owner,
                owner_alias="amazon" if owner == AMAZON else None,
                public=True,
                virtualization_type="hvm",
                architecture=architecture,
                creation_date=datetime(2026, 11, day, tzinfo=UTC),
                image_location="",
                hypervisor="xen",
                root_device_type="ebs",
                root_device_name="/dev/sda1",
                region_name=region,
            )

    # --- machines

    def _instances(self, region: str) -> dict[str, Any]:
        reservations = list(
            get_backend("ec2")[ACCOUNT][region].reservations.values()
        )  # which another thread may add to
        return {
            instance.id: instance
            for reservation in reservations
            for instance in list(reservation.instances)
        }

    def _boot(self, instance_id: str, region: str) -> None:
        stored = self._instances(region)[instance_id].user_data
        self._regions[instance_id] = region
        self.machines.boot(instance_id, base64.b64decode(stored.as_bytes()) if stored else b"")

    def _watch(self) -> None:
        """A machine that powers itself off is terminated, for so was it made."""
        while not self._closed.wait(0.05):
            for instance_id, region in list(self._regions.items()):
                if instance_id in self.machines.living and not self.machines.runs(instance_id):
                    instance = self._instances(region)[instance_id]
                    if instance.state not in ("terminated", "shutting-down"):
                        instance.terminate()
                        instance.state_reason = self._reason(instance_id)

    def _reason(self, instance_id: str) -> StateReason:
        """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html"""
        reclaimed = instance_id in self.machines.reclaimed
        who = "Server.SpotInstanceTermination" if reclaimed else "Client.InstanceInitiatedShutdown"
        return StateReason(f"{who}: Instance ended", who)

    def alive(self) -> list[str]:
        """Instances that still cost money, or whose processes still run."""
        states = {
            key: one.state
            for region in list(get_backend("ec2")[ACCOUNT])
            for key, one in self._instances(region).items()
        }
        return sorted(
            (self.machines.running() & set(self._regions))
            | {key for key, state in states.items() if state not in ("terminated", "shutting-down")}
        )

    def refuse(
        self,
        applies: Callable[[Form], bool],
        code: str,
        status: int = 400,
        message: str = "No.",
        times: int | None = None,
    ) -> None:
        self.refusals.append(Refusal(applies, code, status, message, times))

    def actions(self) -> list[str]:
        return [call["Action"] for call in self.calls]

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


@cache
def _moto() -> DomainDispatcherApplication:
    """One for all: its memory is moto's own, and making it takes longer than asking it."""
    return DomainDispatcherApplication(create_backend_app)


def _region(environ: dict[str, Any]) -> str:
    """The region a request was signed for."""
    return (
        str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].split("/")[2:3][0]
        if "Credential=" in str(environ)
        else "us-east-1"
    )


def _is_onlooker(environ: dict[str, Any]) -> bool:
    return f"Credential={ONLOOKER}/" in str(environ.get("HTTP_AUTHORIZATION", ""))


def _text(content: bytes, status: str = "200 OK") -> Answer:
    return status, [("Content-Type", "text/xml"), ("Content-Length", str(len(content)))], content


def _error(code: str, status: int, message: str) -> Answer:
    text = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>r</RequestID></Response>"
    ).encode()
    return _text(text, f"{status} refused")


def _priced(content: bytes) -> bytes:
    """moto's spot prices are below the least that EC2 takes."""
    return re.sub(rb"(<spotPrice>)[^<]*", rb"\g<1>" + SPOT_PRICE, content)


def _console(instance_id: str, text: str) -> Answer:
    output = base64.b64encode(text.encode()).decode()
    return _xml(
        "GetConsoleOutput",
        f"<instanceId>{instance_id}</instanceId><timestamp>2026-11-23T00:00:00Z</timestamp>"
        f"<output>{output}</output>",
    )


def _xml(action: str, content: str, namespace: str = fleet.NAMESPACE) -> Answer:
    inner = content if "ec2" in namespace else f"<{action}Result>{content}</{action}Result>"
    body = (
        f'<{action}Response xmlns="{namespace}"><requestId>r</requestId>{inner}</{action}Response>'
    ).encode()
    return _text(body)
