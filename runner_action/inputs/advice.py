"""Warnings about inputs that are valid, and defaults that follow least privilege. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner_action import forges, providers
from runner_action.forges import traits_of
from runner_action.forges.places import servers_of
from runner_action.inputs import proxies
from runner_action.inputs.sources import Raw, schema, text_of, variable_of
from runner_action.model import ForgeName, ProviderName
from runner_action.plain import parts_of


def unused(raw: Raw) -> Iterator[str]:
    """Flags and variables that have no effect, and variables in CML's older spelling."""
    retired: Mapping[str, str] = schema()["x-retired"]
    known: set[str] = set()
    for name, prop in schema()["properties"].items():
        known |= {*map(variable_of, (name, *prop.get("x-aliases", ()))), *prop.get("x-env", ())}
        yield from _older(name, prop, raw)
        if given := text_of(name, prop, raw):
            yield from proxies.unusable(name, prop, given[0][-1], given[1])
        if prop.get("format") == "script" and raw.flags.get(name) and not text_of(name, prop, raw):
            yield f"--{name} is empty, so there is no script: did `$(base64 …)` fail?"
    for flag in raw.flags:
        if flag in retired:
            yield f"--{flag} no longer does anything: {retired[flag]}"
    gone = {variable_of(flag): why for flag, why in retired.items()} | schema()["x-retired-env"]
    for key in raw.environ:
        if key in gone:
            yield f"{key} no longer does anything: {gone[key]}"
        elif key.startswith("CML_RUNNER_") and key not in known:
            yield f"{key} is not a variable of cml-runner and was ignored"


def _older(name: str, prop: Mapping[str, Any], raw: Raw) -> Iterator[str]:
    """CML's variables without `CML_`, which other programs may have set."""
    source = (text_of(name, prop, raw) or ([], ""))[1]
    if source.startswith("RUNNER_"):
        yield f"{source} was read as `{name}`, as in CML; write {variable_of(name)}"


def to_another(value: Mapping[str, Any], environ: Mapping[str, str], source: str) -> Iterator[str]:
    """The job's own token would be sent to another server than the job's. `source`: the job's
    variable that the token is from, if any."""
    known = {parts_of(server).netloc for server in servers_of(environ).values() if server}
    host = parts_of(value["repo"]).netloc
    if source and known and host not in known:
        own = " and ".join(sorted(known))
        yield (
            f"repo is at {host}, but this job runs at {own}: the token in {source} is sent to"
            f" {host}; if it is a token of {own}, revoke it, and correct `repo`"
        )


def launch(value: Mapping[str, Any], environ: Mapping[str, str], public: bool) -> list[str]:
    """All warnings about the inputs of a launch. `public`: whether anyone may fork the
    repository."""
    return [
        *tokenless(value, forges.withheld(environ)),
        *exposed(value),
        *(open_to_forks(value) if public else ()),
        *forges.warnings(ForgeName(value["driver"]), value, environ),
    ]


def open_to_forks(value: Mapping[str, Any]) -> Iterator[str]:
    """A pull request from a fork has its own workflow, which may ask for any label that it can
    know.
    https://docs.github.com/en/actions/reference/security/secure-use#hardening-for-self-hosted-runners"""
    if value["labels"]:
        names = ", ".join(value["labels"])
        yield (
            f"this repository is public, and a workflow in a fork's pull request can ask for a"
            f" runner with {names}: leave `labels` out and use the output `label`, or require"
            " approval for all external contributors (Settings > Actions > General)"
        )


def tokenless(value: Mapping[str, Any], withheld: str) -> Iterator[str]:
    """A spot machine without a token cannot restart its job. `withheld`: why the token may be
    missing, as a clause."""
    if value["restart-token"] or not value["cloud"]:
        return
    if value["restart-limit"] and not value["no-retry"] and value["cloud-spot"]:
        workflow = ""
        if traits_of(ForgeName(value["driver"])).restarts_from_outside:
            workflow = (
                ", or add the workflow from docs/restart.md, which needs no token on the machine"
            )
        yield (
            "a spot machine can be reclaimed in the middle of a job, and this one has no token to"
            f" restart it: set `restart-token`{workflow}; `no-retry` turns this warning off"
            + (f"; {withheld}" if withheld else "")
        )


def exposed(value: Mapping[str, Any]) -> Iterator[str]:
    """Jobs can read a token that is stored on the machine. In a pod they are never root."""
    stored = value["restart-token"] and value["restart-limit"] and not value["no-retry"]
    machine = value["cloud"] and not providers.traits_of(ProviderName(value["cloud"])).pods
    if stored and machine and value["job-sudo"]:
        yield (
            "`restart-token` is stored on the machine, where jobs are root and can read it; with"
            " `job-sudo: false` they cannot"
        )


def sized(values: Mapping[str, Any]) -> dict[str, Any]:
    """The cloud's own default size, if neither a size nor a GPU is given."""
    if "cloud" not in values or "cloud-type" in values or "cloud-gpu" in values:
        return {}
    return {"cloud-type": [providers.traits_of(ProviderName(values["cloud"])).default_size]}


def least(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without `labels`, a cloud machine on GitHub has only the launch's own label, which no other
    job knows. A runner that launches share needs labels that they share."""
    shared = values.get("reuse") or values.get("reuse-idle")
    own_label_only = (
        "cloud" in values
        and "driver" in values
        and traits_of(ForgeName(values["driver"])).own_label_suffices
        and "labels" not in values
        and not shared
    )
    return {"labels": [], "no-default-labels": True} if own_label_only else {}
