"""The kubeconfig: where it is, and which cluster and user its context names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner_action import credentials
from runner_action.errors import CredentialsError
from runner_action.files import file_text
from runner_action.providers.kubernetes.errors import KEYS_HINT
from runner_action.providers.kubernetes.options import KubernetesOptions

Json = dict[str, Any]
USUAL = "~/.kube/config"
"""https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"""
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Fields of clusters and users that are paths, relative to the folder of their kubeconfig.
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/"""


@dataclass(frozen=True)
class Chosen:
    """What a context names. `context`: its name; `cluster` and `user`: as in the kubeconfig."""

    context: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    namespace: str


@contextmanager
def readable() -> Iterator[None]:
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


def nothing(environ: Mapping[str, str]) -> CredentialsError:
    message = "There is no kubeconfig, and this does not run in a pod."
    if given := credentials.trimmed(environ.get("KUBECONFIG", "")):
        kind = credentials.looks_like(given, file_text) or "something else"
        message = f"{message[:-1]}; KUBECONFIG is {kind}."
    return CredentialsError(message, KEYS_HINT)


def found(options: KubernetesOptions, environ: Mapping[str, str]) -> Json | None:
    """The kubeconfig; None if there is none."""
    if options.configuration:
        return _parsed(options.configuration.reveal(), "KUBERNETES_CONFIGURATION")
    given = credentials.trimmed(environ.get("KUBECONFIG", ""))
    if "\n" in given or credentials.kubeconfig(given, _no_file):
        return _parsed(given, "KUBECONFIG")
    named = (given or USUAL).split(":")
    paths = [Path(path).expanduser() for path in named if path]
    files = [path for path in paths if path.exists()]
    if not files:
        return None  # as for kubectl
    try:
        return _merged({file: yaml.safe_load(file.read_text("utf-8")) or {} for file in files})
    except (yaml.YAMLError, OSError, ValueError, TypeError, AttributeError):
        raise CredentialsError(
            f"KUBECONFIG is not a kubeconfig{credentials.instead(str(files[0]), file_text)}.",
            KEYS_HINT,
        ) from None


def _no_file(_path: str) -> None:
    return None


def _merged(files: Mapping[Path, Any]) -> Json:
    """One kubeconfig of several: the first that names something wins, as for kubectl.
    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    currents = [one.get("current-context") for one in files.values()]
    whole: Json = {"current-context": next(filter(None, currents), None)}
    for section in ("clusters", "users", "contexts"):
        entries: dict[str, Json] = {}
        for file, one in files.items():
            for entry in one.get(section) or ():
                entries.setdefault(entry["name"], _placed(entry, file))
        whole[section] = list(entries.values())
    return whole


def _placed(entry: Json, file: Path) -> Json:
    """An entry of this file, with absolute paths."""
    return {
        key: _absolute(value, file.parent) if isinstance(value, dict) else value
        for key, value in entry.items()
    }


def _absolute(fields: Json, folder: Path) -> Json:
    """A command is a path if it has a slash, otherwise the name of a program."""
    placed: Json = {key: str(folder / fields[key]) for key in FILES if fields.get(key)}
    command = (fields.get("exec") or {}).get("command") or ""
    if "/" in command:
        placed["exec"] = {**fields["exec"], "command": str(folder / command)}
    return {**fields, **placed}


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


def chosen(kubeconfig: Json, name: str | None) -> Chosen:
    """What the context of that name, or the current one, names. Raises CredentialsError if there
    is no such context."""
    contexts = {entry["name"]: entry["context"] for entry in kubeconfig.get("contexts") or ()}
    wanted = str(name or kubeconfig.get("current-context") or "")
    if wanted not in contexts:
        raise _no_context(wanted, contexts)
    context = contexts[wanted]
    cluster = _named(kubeconfig, "cluster", context)
    if not cluster.get("server"):
        raise CredentialsError(
            f"The kubeconfig cannot be used: its context {wanted} names no cluster with a"
            " `server`.",
            KEYS_HINT,
        )
    return Chosen(
        context=wanted,
        cluster=cluster,
        user=_named(kubeconfig, "user", context),
        namespace=str(context.get("namespace") or "default"),
    )


def _no_context(wanted: str, contexts: Iterable[str]) -> CredentialsError:
    known = ", ".join(contexts)
    if not wanted:
        message = f"The kubeconfig has no current context; it has {known or 'none at all'}."
    else:
        message = f"The kubeconfig has no context {wanted}: it has {known or 'none'}."
    return CredentialsError(
        message,
        "Write one of them as `cloud-kubernetes-context`. In a job of GitLab, KUBECONFIG holds the"
        " agents that the project may use; to be the service account of the job's own pod instead,"
        " set it to nothing.",
    )


def _named(kubeconfig: Json, kind: str, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cluster or the user of a context; nothing if it names none."""
    entries = kubeconfig.get(f"{kind}s") or ()
    named = (entry.get(kind) or {} for entry in entries if entry["name"] == context.get(kind))
    return next(named, {})
