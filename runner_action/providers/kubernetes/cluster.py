"""The cluster: the account, and the calls, through the official client.

Its generated classes are not used: they know the fields of one version only, and a user's pod
template may have newer ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from runner_action import credentials
from runner_action.errors import CredentialsError
from runner_action.plain import parts_of
from runner_action.providers.kubernetes import kubeconfig as kubeconfigs
from runner_action.providers.kubernetes.errors import KEYS_HINT, Refused, translated
from runner_action.providers.kubernetes.login import logged_in
from runner_action.providers.kubernetes.options import KubernetesOptions
from runner_action.providers.kubernetes.tokens import Around
from runner_action.providers.kubernetes.unauthorized import reason
from runner_action.waiting import Clock, SystemClock

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
EARLY = timedelta(minutes=1)
"""How long before its end a token is renewed."""


@dataclass(frozen=True)
class Access:
    """A client with credentials, and the namespace to use. `ends`: when the credentials are no
    longer to be used, if it is known; `way`: the program that they are of, if they are of one."""

    client: ApiClient
    namespace: str
    ends: datetime | None = None
    way: str = ""


def access(
    options: KubernetesOptions,
    environ: Mapping[str, str],
    pod: Path = POD_FOLDER,
    around: Around | None = None,
) -> Access:
    """By the given kubeconfig, by that of the environment, or as the service account of the pod
    that this runs in, whose files are in `pod`. `around`: what a login may use; by default
    `environ` alone. Raises CredentialsError."""
    with translated("reading the kubeconfig"), kubeconfigs.readable():
        found = kubeconfigs.found(options, environ)
        if found is None:
            return _of_pod(options, environ, pod)
        return _of_kubeconfig(found, options, around or Around(environ))


def _of_pod(options: KubernetesOptions, environ: Mapping[str, str], pod: Path) -> Access:
    if not (pod / "token").exists():
        raise kubeconfigs.nothing(environ)
    settings = _settings()
    InClusterConfigLoader(str(pod / "token"), str(pod / "ca.crt"), environ=environ).load_and_set(
        settings
    )
    _check(settings)
    return Access(_client(settings), options.namespace or (pod / "namespace").read_text().strip())


def _of_kubeconfig(kubeconfig: Json, options: KubernetesOptions, around: Around) -> Access:
    chosen = kubeconfigs.chosen(kubeconfig, options.context)
    accounts = {name: value.reveal() for name, value in options.accounts.items()}
    login = logged_in(chosen, replace(around, environ={**around.environ, **accounts}))
    settings = _settings()
    one = {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": dict(chosen.cluster)}],
        "users": [{"name": "one", "user": dict(login.user)}] if login.user else [],
    }
    config.load_kube_config_from_dict(one, client_configuration=settings)
    _check(settings)
    provider = (chosen.user.get("auth-provider") or {}).get("name")
    if provider and not settings.api_key:
        raise CredentialsError(
            f"The kubeconfig logs in with `auth-provider: {provider}`, which gave no token.",
            KEYS_HINT,
        )
    return Access(_client(settings), options.namespace or chosen.namespace, login.ends, login.way)


def _token_of(account: Access) -> str:
    given = account.client.configuration.api_key.values()
    return next((str(value).rpartition(" ")[2] for value in given), "")


def _settings() -> Configuration:
    settings = Configuration()
    settings.retries = RETRIES
    return settings


def _client(settings: Configuration) -> ApiClient:
    client = ApiClient(settings)
    client.user_agent = "cml-runner"
    return client


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


class Cluster:
    """One namespace of one cluster. `who` returns the account, when it is first needed, and again
    when its credentials end or are not accepted."""

    def __init__(self, who: Callable[[], Access], clock: Clock | None = None) -> None:
        self._who = who
        self._clock = clock or SystemClock()
        self._access: Access | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_environment(
        cls, options: KubernetesOptions, environ: Mapping[str, str], around: Around | None = None
    ) -> Cluster:
        """`around`: what a login may use; by default `environ` alone."""
        given = around or Around(environ)
        return cls(lambda: access(options, environ, around=given), given.clock)

    @property
    def access(self) -> Access:
        with self._lock:
            if self._access is None or self._ends(self._access):
                self._access = self._who()
            return self._access

    def _ends(self, current: Access) -> bool:
        return current.ends is not None and self._clock.now() >= current.ends - EARLY

    def _renewed(self, refused: Access) -> Access:
        """Another account than this one; of several threads that were refused, one logs in."""
        with self._lock:
            if self._access is refused:
                self._access = self._who()
            return self._access or refused

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
        account = self.access
        api = f"/apis/{group}/v1" if group else "/api/v1"
        path = f"{api}/namespaces/{account.namespace}/{resource}"
        path += f"/{name}" if name else ""
        path += f"/{part}" if part else ""
        answer = self._answer(account, method, path, parameters, body, streamed)
        if answer.status == 401:  # so nothing was done
            account = self._renewed(account)
            answer = self._answer(account, method, path, parameters, body, streamed)
        if answer.status >= 400:
            raise self._refused(account, answer.status, answer.data.decode("utf-8", "replace"))
        return answer

    @staticmethod
    def _answer(
        account: Access,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Json | None,
        streamed: int,
    ) -> Any:
        patches = method == "PATCH"
        content = "application/merge-patch+json" if patches else "application/json"
        serialized = account.client.param_serialize(
            method,
            path,
            query_params=list(parameters.items()),
            header_params={"Content-Type": content},  # which the client does not set by itself
            body=body,
            auth_settings=["BearerToken"],
        )
        timeout = (TIMEOUT[0], TIMEOUT[1] + streamed)
        return account.client.call_api(*serialized, _request_timeout=timeout).response

    def _refused(self, account: Access, status: int, text: str) -> Refused:
        if status != 401:
            return Refused(status, text)
        why, hint = reason(_token_of(account), account.way, self._clock.now())
        said = Refused(status, text).message
        return Refused(status, f"{said}: {why}" if why else said, hint)

    @staticmethod
    def _object(answer: Any) -> Json:
        parsed: Json = json.loads(answer.data)
        return parsed
