"""From raw text to a checked LaunchRequest: the schema is walked for flags, variables, defaults
and rules.

Sources, first wins: flag, `INPUT_*` (GitHub action), `CML_RUNNER_*`, the schema's `x-env`, the
CI job's own variables, the schema's default. An empty text is absent. Every value keeps the name
under which the user gave it, for the messages. The validated document never holds a secret:
jsonschema prints documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runner_action.errors import InputError
from runner_action.forges.origin import fork_of, is_public
from runner_action.forges.traits import forge_of, project_of, servers_of
from runner_action.inputs import advice, to_request
from runner_action.inputs.conversion import check_rsa, convert, is_here, public_half, repository_url
from runner_action.model import ForgeName, Repository
from runner_action.plain import is_plain, plain
from runner_action.request import CloudRequest, LaunchRequest, RestartRequest

Schema = Mapping[str, Any]
EVERYWHERE = ("status", "destroy", "reap")
"""Commands that look in all regions unless some are named."""


@cache
def schema() -> Schema:
    """The inputs schema: beside the package in a wheel, in `schema/` in a checkout."""
    here = Path(__file__).parents[1]
    places = (here / "inputs.schema.json", here.parent / "schema" / "inputs.schema.json")
    loaded: Schema = json.loads(
        next(place for place in places if place.exists()).read_text("utf-8")
    )
    return loaded


@dataclass(frozen=True)
class Given:
    """A value as the user gave it: converted where that was possible, and under which name it
    came."""

    value: Any
    source: str


@dataclass(frozen=True)
class Raw:
    """Everything the user said, unconverted: flags by input name, the environment, and what was
    not understood."""

    flags: Mapping[str, Sequence[str]]
    environ: Mapping[str, str]
    unknown: Sequence[str] = ()


def spellings() -> set[str]:
    """All names of all inputs."""
    properties = schema()["properties"]
    return {name for key, prop in properties.items() for name in (key, *prop.get("x-aliases", ()))}


def command_of(raw: Raw) -> str:
    """One of the schema's; what else was written is told by `parse`."""
    prop = schema()["properties"]["command"]
    found = _text("command", prop, raw)
    return found[0][-1] if found else str(prop["default"])


def parse(raw: Raw, read_file: Callable[[str], str | None]) -> tuple[LaunchRequest, list[str]]:
    """Checks everything and returns the request with warnings for the user. Raises InputError
    with all problems at once.

    `read_file` gives the text of a file, or None if there is none.
    """
    values = _checked(raw, read_file, forks=False)
    other: dict[str, Any] = (
        {} if "cloud" in values else {"max-lifetime": -1}
    )  # a machine that is not ours to end costs nothing that we could save
    makes_none = values.get("command") in EVERYWHERE
    whole = {
        **_defaults(),
        **other,
        **({"cloud-region": []} if makes_none else advice.least(values)),
        **values,
    }
    public = is_public(raw.environ, read_file)
    made = [] if makes_none else advice.launch(whole, raw.environ, public)
    return to_request.launch_request(whole), [
        *_warnings(raw),
        *advice.to_another(whole, raw.environ, _source_of_token(raw)),
        *made,
    ]


def parse_restart(
    raw: Raw, read_file: Callable[[str], str | None]
) -> tuple[RestartRequest, list[str]]:
    """The same for `restart`."""
    whole = {**_defaults(), **_checked(raw, read_file)}
    return to_request.restart_request(whole), [
        *_warnings(raw),
        *advice.to_another(whole, raw.environ, _source_of_token(raw)),
    ]


def parse_cloud(
    raw: Raw, read_file: Callable[[str], str | None]
) -> tuple[CloudRequest, Repository | None]:
    """Only what is asked of the cloud, and for which repository if that is said: for a question
    that needs no token."""
    value = {**_defaults(), **_checked(raw, read_file, forge=False)}
    repository = Repository(url=value["repo"]) if value["repo"] else None
    return to_request.cloud_request(value), repository


def parse_place(raw: Raw, read_file: Callable[[str], str | None]) -> tuple[Repository | None, bool]:
    """Where on GitHub runners shall be, if that is said, and whether machines might restart
    runs."""
    value = {**_defaults(), **_checked(raw, read_file, forge=False)}
    if value["driver"] == ForgeName.GITLAB:
        raise InputError(
            [
                (
                    f"permissions github: {value['repo'] or 'driver gitlab'} is not GitHub's; on"
                    " GitLab a token needs the scope `api`"
                )
            ]
        )
    return Repository(url=value["repo"]) if value["repo"] else None, bool(
        value["restart-limit"] and not value["no-retry"]
    )


def _checked(
    raw: Raw, read_file: Callable[[str], str | None], *, forge: bool = True, forks: bool = True
) -> dict[str, Any]:
    """`forks`: whether a job for one is welcome though nobody said so."""
    given = dict(_collect(raw, read_file))
    _infer(given, raw.environ, read_file)
    problems = [
        *_unknown(raw),
        *_broken(given, raw.environ),
        *_not_plain(given, raw.environ),
        *_bad_key(given, raw.environ),
        *_open_mirror(given, raw.environ),
        *_in_clear(given, raw.environ),
        *([] if forks else _fork(given, raw.environ, read_file)),
    ]
    missing = list(_missing(given, raw.environ)) if forge else []
    if problems or missing:
        raise InputError(problems, besides=missing) if problems else InputError(missing)
    return {name: entry.value for name, entry in given.items()}


def secrets(raw: Raw) -> list[str]:
    """Every secret the user gave, valid or not, as it was written and as it was read: to be
    masked before anything is said."""
    found: dict[str, None] = {}
    for name, prop in schema()["properties"].items():
        if prop.get("writeOnly") and (given := _text(name, prop, raw)):
            found |= dict.fromkeys([*given[0], str(convert(given[0], prop, lambda _: None))])
    return list(found)


# --- gathering and conversion


def _collect(raw: Raw, read_file: Callable[[str], str | None]) -> Iterator[tuple[str, Given]]:
    for name, prop in schema()["properties"].items():
        found = _text(name, prop, raw)
        if found:
            yield name, Given(convert(found[0], prop, read_file), found[1])


def _text(name: str, prop: Schema, raw: Raw) -> tuple[list[str], str] | None:
    """The first source that says something about an input. GitHub keeps the hyphens of an
    input's name in its variable."""
    absent = ("infer",) if prop.get("writeOnly") else ()  # the word of CML's default
    for flag in (name, *prop.get("x-aliases", ())):
        texts = [text for text in raw.flags.get(flag, ()) if text and text not in absent]
        if texts:
            return texts, f"--{flag}"
    variables = [(f"INPUT_{name.upper()}", f"input {name}")]
    variables += [
        (variable, variable)
        for variable in (f"CML_RUNNER_{name.upper().replace('-', '_')}", *prop.get("x-env", ()))
    ]
    for variable, source in variables:
        text = raw.environ.get(variable, "").strip()
        if text and text not in absent:
            return [text], source
    return None


# --- inference


def _infer(
    given: dict[str, Given], environ: Mapping[str, str], read_file: Callable[[str], str | None]
) -> None:
    """Repository, forge and the run that triggered this one from the CI job's variables, where
    the user did not say them."""
    if "run-id" not in given and environ.get("GITHUB_EVENT_NAME") == "workflow_run":
        with suppress(
            ValueError, TypeError, KeyError
        ):  # a broken file says nothing; `restart` then asks for `run-id`
            event = json.loads(read_file(environ.get("GITHUB_EVENT_PATH", "")) or "{}")
            given["run-id"] = Given(event["workflow_run"]["id"], "GITHUB_EVENT_PATH")
    servers = servers_of(environ)
    if "repo" not in given and (project := project_of(environ)):
        given["repo"] = Given(*project)
    if "repo" in given:
        asked = given["driver"].value if "driver" in given else None
        given["repo"] = Given(
            repository_url(str(given["repo"].value), asked, servers), given["repo"].source
        )
        if asked is None and (forge := forge_of(str(given["repo"].value), servers)):
            given["driver"] = Given(forge.value, given["repo"].source)


# --- problems


def _unknown(raw: Raw) -> Iterator[str]:
    known = list(schema()["properties"])
    # Never with what was written behind it: `--tokne=…` holds a secret.
    for flag in (word.partition("=")[0] for word in raw.unknown if word.startswith("-")):
        if flag.lstrip("-") in spellings():
            yield f"{flag} is not read by `{command_of(raw)}`: leave it out"
            continue
        yield f"{flag} is not a flag of cml-runner{_did_you_mean(flag.lstrip('-'), known, '--')}"
    if any(not word.startswith("-") for word in raw.unknown):
        yield "a word was given that belongs to no flag; write `--flag=value`"
    for name in (
        key.removeprefix("INPUT_").lower() for key in raw.environ if key.startswith("INPUT_")
    ):
        if (
            raw.environ.get("GITHUB_ACTIONS")
            and name not in known
            and get_close_matches(name, known, 1, 0.8)
        ):
            yield f"input {name} is not an input of cml-runner{_did_you_mean(name, known)}"


def _broken(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """The schema's verdict in the user's words. Secrets are starred out before the validator
    sees them."""
    from jsonschema import Draft202012Validator  # 60 ms that `--help` need not spend

    properties = schema()["properties"]
    document = {
        name: "***" if properties[name].get("writeOnly") else entry.value
        for name, entry in given.items()
    }
    seen: set[str] = set()
    for error in Draft202012Validator(schema()).iter_errors(document):
        where = list(error.absolute_schema_path)
        rule = schema()[where[0]][where[1]]
        if where[0] == "properties":
            about = str(where[1])
            words = (
                "true or false"
                if rule["type"] == "boolean"
                else " or ".join(f"`{word}`" for word in rule.get("enum", ["a text"]))
            )
            wanted = f"{{{about}}} wants {words}"
        else:
            about, wanted = rule.get("x-about", ""), rule["x-message"]
        message = _named(rule.get("x-message", wanted), given, environ)
        if about:
            known = [
                str(word).lower()
                for word in properties[about].get("enum") or properties[about].get("x-suggest", ())
            ]
            value = given[about].value
            message += next(
                filter(
                    None,
                    (
                        _did_you_mean(str(word), known)
                        for word in (value if isinstance(value, list) else [value])
                    ),
                ),
                "",
            )
        if message not in seen:
            seen.add(message)
            yield message


def _not_plain(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """Texts that would be more than text where they are shown or written: a rule for all of them,
    as the schema's patterns, one by one, let a line end pass at the end of a text."""
    for name, entry in given.items():
        prop = schema()["properties"][name]
        values = entry.value if isinstance(entry.value, list) else [entry.value]
        texts = (value for value in values if isinstance(value, str))
        if not (prop.get("x-lines") or prop.get("writeOnly") or all(map(is_plain, texts))):
            yield _named(schema()["x-plain"].replace("INPUT", name), given, environ)


def _in_clear(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """A token for a server that is asked without TLS."""
    allowed = "allow-http" in given and given["allow-http"].value is True
    parts = urlsplit(str(given["repo"].value)) if "repo" in given else urlsplit("")
    if parts.scheme == "http" and not allowed and not is_here(parts.hostname or ""):
        told = "{repo} begins with `http`: anybody on the way could read the token"
        yield _named(
            f"{told}; write `https`, or, if that is meant, set {{allow-http}} to true",
            given,
            environ,
        )


def _bad_key(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """What the schema cannot say: a key must be one that can be read without a passphrase."""
    if entry := given.get("app-private-key"):
        try:
            check_rsa(str(entry.value))
        except ValueError:
            yield _named(
                "{app-private-key} wants the private key of a GitHub App: the text of its `.pem`"
                " file, or that in Base64",
                given,
                environ,
            )
    if entry := given.get("cloud-ssh-private"):
        try:
            public_half(str(entry.value))
        except ValueError:
            yield _named(
                "{cloud-ssh-private} wants the text of a private SSH key without a passphrase, as"
                " `ssh-keygen -t rsa -m pem -f key.pem` writes it",
                given,
                environ,
            )


def _open_mirror(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """GitLab's checksums lie beside the programs, so a mirror decides what runs; over plain http,
    whoever is on the way does. A GitLab that is reached so itself decides all the rest as well."""
    mirror, repo = (
        urlsplit(str(given[name].value) if name in given else "")
        for name in ("runner-downloads", "repo")
    )
    if mirror.scheme == "http" and mirror[:2] != repo[:2]:
        yield _named(
            "{runner-downloads} wants `https://`: what it serves is run, and is checked by nothing"
            " but the list beside it",
            given,
            environ,
        )


def _fork(
    given: Mapping[str, Given], environ: Mapping[str, str], read_file: Callable[[str], str | None]
) -> Iterator[str]:
    allowed = "allow-forks" in given and given["allow-forks"].value is True
    if not allowed and (fork := fork_of(environ, read_file)):
        told = (
            f"this job is for a request from {plain(fork)}: its code, which anybody may have"
            " written, would run on your machine, beside your secrets"
        )
        yield _named(
            f"{told}; read it and push it to a branch of your own, or, if such code is welcome, set"
            " {allow-forks} to true",
            given,
            environ,
        )


def _missing(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """What a launch cannot do without, and no default can know."""
    if "repo" not in given:
        yield _named(
            "{repo} is missing: write the repository's URL, or run this in a GitHub or GitLab job",
            given,
            environ,
        )
    elif "driver" not in given and str(given["repo"].value).startswith("http"):
        yield _named(
            "{driver} is missing: the repository's address does not tell whether it is `github` or"
            " `gitlab`",
            given,
            environ,
        )
    if not {"token", "app-id", "app-private-key"} & given.keys():
        yield _named(
            "{token} is missing: put a token that may register runners into the variable"
            " REPO_TOKEN",
            given,
            environ,
        )
    command = given["command"].value if "command" in given else ""
    if command == "destroy" and "name" not in given:
        yield _named("{name} is missing: write `cml-runner destroy NAME`", given, environ)
    if command in ("destroy", "reap") and "cloud" not in given:
        yield _named("{cloud} is missing: say whose machines are meant", given, environ)
    if command == "restart" and "run-id" not in given:
        yield _named(
            "{run-id} is missing: say which run to restart, or run this in a workflow `on:"
            " workflow_run`",
            given,
            environ,
        )


def _named(message: str, given: Mapping[str, Given], environ: Mapping[str, str]) -> str:
    """Puts the user's own spelling in place of `{name}`; of `{a|b}` the first that was given."""

    def spelled(match: re.Match[str]) -> str:
        names = match[1].split("|")
        name = next((name for name in names if name in given), names[0])
        prefix = "input " if environ.get("GITHUB_ACTIONS") or environ.get("GITLAB_CI") else "--"
        if name not in given:
            return f"{prefix}{name}"
        prop, entry = schema()["properties"][name], given[name]
        if prop.get("writeOnly") or prop.get("format") == "script" or entry.value is True:
            return entry.source
        value = (
            ",".join(map(str, entry.value)) if isinstance(entry.value, list) else str(entry.value)
        )
        value = "false" if entry.value is False else value
        value = plain(re.sub(r"//[^/@\s]+@", "//***@", value))  # an address may hold credentials
        return (
            f"{entry.source}={value}"
            if entry.source.startswith("--")
            else f"{entry.source} ({value})"
        )

    return re.sub(r"\{([a-z|-]+)\}", spelled, message)


def _did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    close = [] if word in known else get_close_matches(word, list(known), 1)
    return f"; did you mean `{prefix}{close[0]}`?" if close else ""


def _warnings(raw: Raw) -> list[str]:
    retired: Mapping[str, str] = schema()["x-retired"]
    known = {f"CML_RUNNER_{name.upper().replace('-', '_')}" for name in schema()["properties"]}
    known |= {
        variable for prop in schema()["properties"].values() for variable in prop.get("x-env", ())
    }
    said = [
        f"--{flag} no longer does anything: {retired[flag]}"
        for flag in raw.flags
        if flag in retired
    ]
    said += [
        f"{key} is not a variable of cml-runner and was passed over"
        for key in raw.environ
        if key.startswith("CML_RUNNER_") and key not in known
    ]
    return said


def _source_of_token(raw: Raw) -> str:
    """The variable that it comes from, if that is not ours alone; else empty."""
    prop = schema()["properties"]["token"]
    found = _text("token", prop, raw)
    return found[1] if found and found[1] in prop["x-env"] else ""


def _defaults() -> dict[str, Any]:
    return {name: prop.get("default") for name, prop in schema()["properties"].items()}
