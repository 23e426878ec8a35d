"""The cluster: the account, and the calls, through the official client and its ways to log in.

Its generated classes are not used: they know the fields of one version only, and a user's pod
template may have newer ones.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, ConfigNode, KubeConfigMerger

from runner_action import credentials
from runner_action.errors import CredentialsError
from runner_action.files import file_text
from runner_action.plain import parts_of
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
"""Also for creations: objects have names, so that a second one is refused, and the first can be
read."""
TIMEOUT = (10, 30)
"""Seconds, to connect and between two chunks of a response."""
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
    """A client with credentials, and the namespace to use."""

    client: ApiClient
    namespace: str


def access(
    options: KubernetesOptions, environ: Mapping[str, str], pod: Path = POD_FOLDER
) -> Access:
    """By the given kubeconfig, by that of the environment, or as the service account of the pod
    that this runs in, whose files are in `pod`. Raises CredentialsError."""
    with translated("reading the kubeconfig"), _readable():
        kubeconfig = _configuration(options, environ)
        settings = Configuration()
        settings.retries = RETRIES
        if kubeconfig is None:
            if not (pod / "token").exists():
                raise _nothing(environ)
            InClusterConfigLoader(
                str(pod / "token"), str(pod / "ca.crt"), environ=environ
            ).load_and_set(settings)
            namespace = (pod / "namespace").read_text().strip()
        else:
            chosen = _context(kubeconfig, options.context)
            namespace = str(chosen.get("namespace") or "default")
            _check_plug_in(kubeconfig, str(chosen.get("user")), environ)
            config.load_kube_config_from_dict(
                kubeconfig, context=options.context, client_configuration=settings
            )
        _check(settings)
    client = ApiClient(settings)
    client.user_agent = "cml-runner"
    return Access(client, options.namespace or namespace)


@contextmanager
def _readable() -> Iterator[None]:
    """Raises CredentialsError for a document of another shape, or a file that it names and that
    cannot be read."""
    try:
        yield
    except OSError as error:
        raise CredentialsError(
            f"The kubeconfig cannot be used: {error.strerror or type(error).__name__}:"
            f" {error.filename}.",
            KEYS_HINT,
        ) from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        # The text may quote a value.
        raise CredentialsError(
            f"The kubeconfig cannot be used: its fields are not as they should be"
            f" ({type(error).__name__}).",
            KEYS_HINT,
        ) from None


def _nothing(environ: Mapping[str, str]) -> CredentialsError:
    message = "There is no kubeconfig, and this does not run in a pod."
    if given := credentials.trimmed(environ.get("KUBECONFIG", "")):
        kind = credentials.looks_like(given, file_text) or "something else"
        message = f"{message[:-1]}; KUBECONFIG is {kind}."
    return CredentialsError(message, KEYS_HINT)


def _check(settings: Configuration) -> None:
    """Raises CredentialsError for an address or a token that no request can be made with. What
    surrounds a token is removed."""
    if not parts_of(str(settings.host)).hostname:
        raise CredentialsError("The kubeconfig's `server` is not an address.", KEYS_HINT)
    _clean(settings)
    renew = vars(settings).get("refresh_api_key_hook")
    if renew:  # it sets the token again before every call

        def renewed(current: Configuration) -> None:
            renew(current)
            _clean(current)

        vars(settings)["refresh_api_key_hook"] = renewed


def _clean(settings: Configuration) -> None:
    for name, value in settings.api_key.items():
        kind, _, token = credentials.trimmed(str(value)).rpartition(" ")
        if strange := credentials.strange(f"{kind}{token}"):
            raise CredentialsError(f"The kubeconfig's token contains {strange}.", KEYS_HINT)
        settings.api_key[name] = f"{kind} {token}".strip()


def _configuration(options: KubernetesOptions, environ: Mapping[str, str]) -> Json | None:
    """The kubeconfig; None if there is none."""
    if options.configuration:
        return _parsed(options.configuration.reveal(), "KUBERNETES_CONFIGURATION")
    given = credentials.trimmed(environ.get("KUBECONFIG", ""))
    if "\n" in given or credentials.kubeconfig(given, _no_file):
        return _parsed(given, "KUBECONFIG")
    paths = given or str(Path(KUBE_CONFIG_DEFAULT_LOCATION).expanduser())
    if not (given or Path(paths).exists()):
        return None
    try:
        merged = _plain(KubeConfigMerger(paths).config)
    except (yaml.YAMLError, OSError, ValueError, TypeError, AttributeError):
        merged = None
    if isinstance(merged, dict):
        return merged
    if given and not any(Path(path).expanduser().exists() for path in given.split(":")):
        return None  # as for kubectl
    raise CredentialsError(
        f"KUBECONFIG is not a kubeconfig{credentials.instead(paths, file_text)}.", KEYS_HINT
    )


def _no_file(_path: str) -> None:
    return None


def _plain(node: Any) -> Any:
    """Plain data from what the client merged from several files, with absolute paths."""
    value = node.value if isinstance(node, ConfigNode) else node
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _parsed(text: str, variable: str) -> Json:
    """Parses YAML. Errors have no message of the parser, which would quote the text."""
    try:
        kubeconfig = yaml.safe_load(credentials.kubeconfig(text, file_text) or "")
    except (yaml.YAMLError, ValueError):
        kubeconfig = None
    if not isinstance(kubeconfig, dict):
        raise CredentialsError(
            f"{variable} is not a kubeconfig{credentials.instead(text, file_text)}.",
            "Set it to the text of the file, as `kubectl config view --raw --minify` prints it.",
        )
    return kubeconfig


def _context(kubeconfig: Json, name: str | None) -> Mapping[str, Any]:
    """The context of that name, or the current one. Raises CredentialsError if there is none."""
    names = [entry["name"] for entry in kubeconfig.get("contexts") or ()]
    chosen = name or kubeconfig.get("current-context")
    context: Mapping[str, Any] | None = next(
        (entry["context"] for entry in kubeconfig.get("contexts") or () if entry["name"] == chosen),
        None,
    )
    if context is None:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise CredentialsError(
            f"The kubeconfig has no context {chosen}: {known}.",
            "Write one of them as `cloud-kubernetes-context`.",
        )
    return context


def _check_plug_in(kubeconfig: Json, user: str, environ: Mapping[str, str]) -> None:
    """Raises CredentialsError if the kubeconfig names a login program that is not installed: our
    image has none."""
    settings = next(
        (
            entry.get("user") or {}
            for entry in kubeconfig.get("users") or ()
            if entry["name"] == user
        ),
        {},
    )
    command = (settings.get("exec") or {}).get("command")
    if command and not shutil.which(command, path=environ.get("PATH")):
        instead = PLUG_INS.get(
            Path(command).name, "`kubectl create token …` of a service account (docs/kubernetes.md)"
        )
        text = f"The kubeconfig logs in with the program `{command}`, which is not installed here."
        raise CredentialsError(
            text, f"Use a kubeconfig with a token or a certificate in it: {instead}."
        )


class Cluster:
    """One namespace of one cluster. `who` returns the account, when it is first needed."""

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
        content: bytes = self._send("GET", kind, name, parameters).data
        return content.decode("utf-8", "replace")

    def create(self, kind: str, body: Json) -> Json:
        """Creates an object. Fields that the cluster does not know are refused, not dropped."""
        return self._object(self._send("POST", kind, "", {"fieldValidation": "Strict"}, body))

    def patch(self, kind: str, name: str, body: Json) -> Json:
        """Merges `body` into the object (a JSON merge patch)."""
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
        """Yields events as they come, for that long, or until the stream ends early or the history
        is gone: then list again."""
        query = {"watch": "true", "timeoutSeconds": str(seconds), **parameters}
        answer = self._send("GET", kind, "", query, streamed=seconds)
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
        """urllib3's response. `kind`: `batch/jobs`, `pods`; with a name also `pods/log`.
        `streamed`: in chunks, for that many seconds. Raises Refused."""
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
        }  # which the client does not set by itself
        serialized = client.param_serialize(
            method,
            path,
            query_params=list(parameters.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = client.call_api(
            *serialized, _request_timeout=(TIMEOUT[0], TIMEOUT[1] + streamed)
        ).response
        if answer.status >= 400:
            raise Refused(answer.status, answer.data.decode("utf-8", "replace"))
        return answer

    @staticmethod
    def _object(answer: Any) -> Json:
        parsed: Json = json.loads(answer.data)
        return parsed
