"""Who a token is, for an API server: before it stands a door that lets in only tokens which an
authenticator of a cloud, or GitLab's agent, takes. The server behind knows one token of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from runner_action.sandbox.kubernetes.api import FakeKubernetes
from runner_action.sandbox.served import Application, Start

Now = Callable[[], datetime]
UNAUTHORIZED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "Unauthorized",
    "reason": "Unauthorized",
    "code": 401,
}
"""All that an API server says, whatever the reason is."""


class Door:
    """`refusal`: why a token is not accepted; None if it is. `prefix`: of all paths, as behind
    GitLab's agent server. `tokens`: those that came, in order."""

    def __init__(
        self, cluster: FakeKubernetes, refusal: Callable[[str], str | None], prefix: str = ""
    ) -> None:
        self._refusal = refusal
        self._prefix = prefix
        self._behind = f"Bearer {cluster.token}"
        self.tokens: list[str] = []
        self.refused: list[str] = []
        cluster.served.between = self

    def __call__(self, app: Application, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        self.tokens.append(token)
        path = environ["PATH_INFO"]
        why = self._refusal(token) if scheme == "Bearer" else "no token"
        if why is None and not path.startswith(f"{self._prefix}/"):
            why = f"not below {self._prefix}"
        if why is not None:
            self.refused.append(why)
            start("401 Unauthorized", [("Content-Type", "application/json")])
            return [json.dumps(UNAUTHORIZED).encode()]
        environ["HTTP_AUTHORIZATION"] = self._behind
        environ["PATH_INFO"] = path.removeprefix(self._prefix)
        return app(environ, start)


@dataclass
class Issued:
    """Tokens that a service has given, each until its end."""

    now: Now
    ends: dict[str, datetime] = field(default_factory=dict)

    def refusal(self, token: str) -> str | None:
        if token not in self.ends:
            return "unknown"
        return "expired" if self.now() >= self.ends[token] else None


PREFIX = "k8s-aws-v1."
LONGEST = 4096
HOST = re.compile(r"sts(\.[a-z]+-[a-z]+-\d)?\.amazonaws\.com")
PARAMETERS = {
    *("action", "version", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires"),
    *("x-amz-security-token", "x-amz-signature", "x-amz-signedheaders"),
}
VALID = timedelta(minutes=15)
DATE = "%Y%m%dT%H%M%SZ"


@dataclass
class Iam:
    """The authenticator of EKS and the service that it asks, STS. `keys`: secret access keys by
    access key ID; `sessions`: session tokens of those that are temporary.
    https://github.com/kubernetes-sigs/aws-iam-authenticator: pkg/token/token.go"""

    cluster: str
    keys: dict[str, str]
    now: Now
    sessions: dict[str, str] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    """Besides those of STS."""

    def refusal(self, token: str) -> str | None:
        if len(token) > LONGEST or not token.startswith(PREFIX) or "=" in token:
            return "not a token of IAM"
        encoded = token.removeprefix(PREFIX)
        address = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        parts = urlsplit(address)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        asked = {name.lower(): value for name, value in pairs}
        if parts.scheme != "https" or parts.path != "/":
            return "not an address of STS"
        if not (HOST.fullmatch(parts.netloc) or parts.netloc in self.hosts):
            return "another host than STS"
        if len(pairs) != len(asked) or not asked.keys() <= PARAMETERS:
            return "parameters that do not belong there"
        return self._stale(asked) or self._unsigned(parts.netloc, pairs, asked)

    def _stale(self, asked: Mapping[str, str]) -> str | None:
        if asked.get("action") != "GetCallerIdentity":
            return "another action"
        if "x-k8s-aws-id" not in asked["x-amz-signedheaders"].split(";"):
            return "the cluster is not signed"
        if not 0 <= int(asked["x-amz-expires"]) <= 900:
            return "expires too late"
        signed = datetime.strptime(asked["x-amz-date"], DATE).replace(tzinfo=UTC)
        return "expired" if self.now() > signed + VALID else None

    def _unsigned(
        self, host: str, pairs: list[tuple[str, str]], asked: Mapping[str, str]
    ) -> str | None:
        """What STS says: the signature is of this request, with this cluster's name.
        https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html"""
        identity, day, region, service, end = asked["x-amz-credential"].split("/")
        if identity not in self.keys:
            return "nobody's key"
        if asked.get("x-amz-security-token") != self.sessions.get(identity):
            return "another session"
        headers = {"host": host, "x-k8s-aws-id": self.cluster}
        names = asked["x-amz-signedheaders"].split(";")
        query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in sorted(pairs)
            if name != "X-Amz-Signature"
        )
        lines = [f"{name}:{headers.get(name, '')}" for name in names]
        empty = hashlib.sha256(b"").hexdigest()
        canonical = "\n".join(["GET", "/", query, *lines, "", ";".join(names), empty])
        scope = "/".join([day, region, service, end])
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", asked["x-amz-date"], scope, hashed])
        key = f"AWS4{self.keys[identity]}".encode()
        for part in (day, region, service, end, text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return None if key.hex() == asked["x-amz-signature"] else "signed for another cluster"
