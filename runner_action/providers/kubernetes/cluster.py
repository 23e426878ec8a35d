"""The cluster: who asks, and the calls, through the official client and its ways of logging in.

Its generated classes are passed by: they know the fields of one version only, and a user's pod
template may know newer ones.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, ConfigNode, KubeConfigMerger

from runner_action.errors import CredentialsError
from runner_action.providers.kubernetes.errors import KEYS_HINT, Refused, translated
from runner_action.providers.kubernetes.options import KubernetesOptions

Json = dict[str, Any]
POD_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account."""
RETRIES = urllib3.Retry(
    5,
    connect=2,
    redirect=0,
    backoff_factor=0.3,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)
"""Creations too: they have a name, so that a second one is refused and the first found."""
TIMEOUT = (10, 30)
"""Seconds, to connect and between two pieces of an answer."""
PLUG_INS = {
    "aws": "on EKS, `kubectl create token …` of a service account (docs/kubernetes.md)",
    "aws-iam-authenticator": (
        "on EKS, `kubectl create token …` of a service account (docs/kubernetes.md)"
    ),
    "gke-gcloud-auth-plugin": (
        "on GKE, `kubectl create token …` of a service account (docs/kubernetes.md)"
    ),
    "kubelogin": (
        "on AKS, `az aks get-credentials --admin`, or `kubectl create token …` of a service account"
        " (docs/kubernetes.md)"
    ),
}


@dataclass(frozen=True)
class Access:
    """A client that knows who asks, and the namespace that goes with it."""

    client: ApiClient
    namespace: str


def access(
    options: KubernetesOptions, environ: Mapping[str, str], pod: Path = POD_FOLDER
) -> Access:
    """By the given kubeconfig, by that of the environment, or as the pod that this runs in,
    whose service account is in `pod`. Raises CredentialsError."""
    with translated("reading the kubeconfig"):
        told = _configuration(options, environ)
        settings = Configuration()
        settings.retries = RETRIES
        if told is None:
            if not (pod / "token").exists():
                raise CredentialsError(
                    "There is no kubeconfig, and this is no pod of a cluster.", KEYS_HINT
                )
            InClusterConfigLoader(
                str(pod / "token"), str(pod / "ca.crt"), environ=environ
            ).load_and_set(settings)
            found = (pod / "namespace").read_text().strip()
        else:
            chosen = _context(told, options.context)
            found = str(chosen.get("namespace") or "default")
            _check_plug_in(told, str(chosen.get("user")), environ)
            config.load_kube_config_from_dict(
                told, context=options.context, client_configuration=settings
            )
    client = ApiClient(settings)
    client.user_agent = "cml-runner"
    return Access(client, options.namespace or found)


def _configuration(options: KubernetesOptions, environ: Mapping[str, str]) -> Json | None:
    """None: there is none."""
    if options.configuration:
        return _parsed(options.configuration.reveal())
    paths = environ.get("KUBECONFIG") or str(Path(KUBE_CONFIG_DEFAULT_LOCATION).expanduser())
    if environ.get("KUBECONFIG") or Path(paths).exists():
        found = _plain(KubeConfigMerger(paths).config)
        return found if isinstance(found, dict) else None
    return None


def _plain(node: Any) -> Any:
    """What the client has merged from several files, with its own paths made whole."""
    value = node.value if isinstance(node, ConfigNode) else node
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _parsed(text: str) -> Json:
    """YAML, or its Base64. No message of a parser's: it would quote what it could not read."""
    try:
        text = base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        pass
    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError:
        told = None
    if not isinstance(told, dict):
        raise CredentialsError(
            "KUBERNETES_CONFIGURATION is no kubeconfig.",
            "Its value is the text of the file, as `kubectl config view --raw --minify` prints it.",
        )
    return told


def _context(told: Json, name: str | None) -> Mapping[str, Any]:
    names = [one["name"] for one in told.get("contexts") or ()]
    wanted = name or told.get("current-context")
    found = next(
        (one["context"] for one in told.get("contexts") or () if one["name"] == wanted), None
    )
    if found is None:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise CredentialsError(
            f"The kubeconfig has no context {wanted}: {known}.",
            "Write one of them as `cloud-kubernetes-context`.",
        )
    chosen: Mapping[str, Any] = found
    return chosen


def _check_plug_in(told: Json, user: str, environ: Mapping[str, str]) -> None:
    """A kubeconfig may name a program that logs in; in our image there is none."""
    found = next(
        (one.get("user") or {} for one in told.get("users") or () if one["name"] == user), {}
    )
    command = (found.get("exec") or {}).get("command")
    if command and not shutil.which(command, path=environ.get("PATH")):
        instead = PLUG_INS.get(
            Path(command).name, "`kubectl create token …` of a service account (docs/kubernetes.md)"
        )
        text = f"The kubeconfig logs in by the program `{command}`, which is not here."
        raise CredentialsError(
            text, f"Use a kubeconfig with a token or a certificate in it: {instead}."
        )


class Cluster:
    """One namespace of one cluster. `who` finds out who asks, when that is first needed."""

    def __init__(self, who: Callable[[], Access]) -> None:
        self._who = who
        self._access: Access | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, options: KubernetesOptions, environ: Mapping[str, str]) -> Cluster:
        return cls(lambda: access(options, environ))

    @property
    def access(self) -> Access:
        with self._lock:
            self._access = self._access or self._who()
            return self._access

    @property
    def namespace(self) -> str:
        return self.access.namespace

    def get(self, kind: str, name: str = "", **parameters: str) -> Json:
        return self._object(self._send("GET", kind, name, parameters))

    def text(self, kind: str, name: str, **parameters: str) -> str:
        told: bytes = self._send("GET", kind, name, parameters).data
        return told.decode("utf-8", "replace")

    def create(self, kind: str, body: Json) -> Json:
        """Fields that the cluster does not know are refused, not dropped."""
        return self._object(self._send("POST", kind, "", {"fieldValidation": "Strict"}, body))

    def patch(self, kind: str, name: str, body: Json) -> Json:
        """Of mappings what is given is changed."""
        return self._object(self._send("PATCH", kind, name, {}, body))

    def there(self, kind: str, name: str) -> Json | None:
        """The object of that name; None: there is none."""
        if not name:
            raise ValueError(f"without a name all {kind} would be listed")
        try:
            return self.get(kind, name)
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def delete(self, kind: str, name: str, uid: str, propagation: str = "Background") -> bool:
        """Deletes the object of that name if it has that uid, and is no other that came later.
        False: there is none.
        https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/"""
        if not name:
            raise ValueError(f"without a name all {kind} would be deleted")
        options = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
        try:
            self._send("DELETE", kind, name, {}, options)
        except Refused as error:
            if error.status not in (404, 409):
                raise
            return False
        return True

    def watch(self, kind: str, seconds: int, **parameters: str) -> Iterator[Json]:
        """Events as they come, for so long. A stream that ends early, or history that is gone,
        is its end: list again."""
        told = {"watch": "true", "timeoutSeconds": str(seconds), **parameters}
        answer = self._send("GET", kind, "", told, streamed=seconds)
        rest = b""
        try:
            for piece in answer.stream(1 << 16):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        except urllib3.exceptions.HTTPError:
            return
        finally:
            answer.close()

    def _send(
        self,
        method: str,
        kind: str,
        name: str,
        parameters: Mapping[str, str],
        body: Json | None = None,
        *,
        streamed: int = 0,
    ) -> Any:
        """urllib3's answer. `kind`: `batch/jobs`, `pods`; with a name `pods/log` too.
        `streamed`: piece by piece, for so many seconds. Raises Refused."""
        group, _, rest = kind.rpartition("/") if kind.startswith("batch/") else ("", "", kind)
        resource, _, part = rest.partition("/")
        path = (
            f"{f'/apis/{group}/v1' if group else '/api/v1'}/namespaces/{self.namespace}/{resource}"
        )
        path += f"/{name}" if name else ""
        path += f"/{part}" if part else ""
        client = self.access.client
        headers = {
            "Content-Type": (
                "application/merge-patch+json" if method == "PATCH" else "application/json"
            )
        }  # of which the client says nothing
        asked = client.param_serialize(
            method,
            path,
            query_params=list(parameters.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = client.call_api(
            *asked, _request_timeout=(TIMEOUT[0], TIMEOUT[1] + streamed)
        ).response
        if answer.status >= 400:
            raise Refused(answer.status, answer.data.decode("utf-8", "replace"))
        return answer

    @staticmethod
    def _object(answer: Any) -> Json:
        told: Json = json.loads(answer.data)
        return told
