"""Problems with the inputs, in the user's terms: what the schema refuses, and what no schema can
express. Pure, except for reading files that inputs name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from runner_action import credentials
from runner_action.files import ReadFile
from runner_action.forges import job_environments, withheld
from runner_action.inputs.conversion import check_rsa, is_here, public_half
from runner_action.inputs.sources import Given, Raw, command_of, schema, spellings
from runner_action.model import ForgeName, ProviderName
from runner_action.plain import is_plain, parts_of, plain

LAUNCH = "launch"
"""The command if none is given."""


def problems(raw: Raw, given: Mapping[str, Given], read_file: ReadFile) -> Iterator[str]:
    """All problems with the inputs that were given."""
    environ = raw.environ
    yield from _unknown(raw)
    yield from (
        _named(f"{{{name}}} {entry.unfit}", given, environ)
        for name, entry in given.items()
        if entry.unfit
    )
    yield from _broken(given, environ)
    yield from _not_plain(given, environ)
    yield from _bad_key(given, environ, read_file)
    yield from _bad_token(given, environ, read_file)
    yield from _open_mirror(given, environ)
    yield from _in_clear(given, environ)


def _unknown(raw: Raw) -> Iterator[str]:
    known = list(schema()["properties"])
    # Never with its value: `--tokne=…` contains a secret.
    for flag in (word.partition("=")[0] for word in raw.unknown if word.startswith("-")):
        if flag.lstrip("-") in spellings() and not flag.startswith("--"):
            yield f"{flag} is not a flag of cml-runner; write `-{flag}`"
            continue
        if flag.lstrip("-") in spellings():
            yield f"{flag} is not read by `{command_of(raw)}`: leave it out"
            continue
        yield f"{flag} is not a flag of cml-runner{_did_you_mean(flag.lstrip('-'), known, '--')}"
    yield from (sentence for sentence in raw.unknown if not sentence.startswith("-"))
    if not any(job.passes_inputs for job in job_environments(raw.environ)):
        return
    inputs = (key for key in raw.environ if key.startswith("INPUT_"))
    for name in (key.removeprefix("INPUT_").lower() for key in inputs):
        if name not in known and get_close_matches(name, known, 1, 0.8):
            yield f"input {name} is not an input of cml-runner{_did_you_mean(name, known)}"


def _broken(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """What the schema refuses, but for what is unfit anyway. The validator sees `***` in place of
    secrets."""
    from jsonschema import Draft202012Validator  # 60 ms that `--help` need not spend

    properties = schema()["properties"]
    document = {
        name: "***" if properties[name].get("writeOnly") or entry.unfit else entry.value
        for name, entry in given.items()
    }
    unfit = [["properties", name] for name, entry in given.items() if entry.unfit]
    seen: set[str] = set()
    for error in Draft202012Validator(schema()).iter_errors(document):
        path = list(error.absolute_schema_path)
        if path[:2] in unfit:
            continue
        message = _verdict(path, given, environ)
        if message not in seen:
            seen.add(message)
            yield message


def _verdict(path: Sequence[Any], given: Mapping[str, Given], environ: Mapping[str, str]) -> str:
    """The message for a rule of the schema. `path`: where the rule is, such as `properties`,
    `count`, `minimum`."""
    section, key = path[:2]
    rule = schema()[section][key]
    if section != "properties":
        message = _named(rule["x-message"], given, environ)
        about = rule.get("x-about", "")
        return message + _suggestion(about, given) if about else message
    name = str(key)
    message = rule.get("x-message", f"{{{name}}} must be {_allowed(rule)}")
    message = message.replace("EXAMPLE", _example(rule.get("x-examples", {}), given))
    return _named(message, given, environ) + _suggestion(name, given)


def _example(examples: Mapping[str, str], given: Mapping[str, Given]) -> str:
    """What to write on the cloud at hand; without one, on each of them."""
    cloud = str(given["cloud"].value) if "cloud" in given else ""
    every = (f"{text} ({name})" for name, text in examples.items())
    return examples[cloud] if cloud in examples else ", ".join(every)


def _allowed(rule: Mapping[str, Any]) -> str:
    if rule["type"] == "boolean":
        return "true or false"
    return " or ".join(f"`{word}`" for word in rule.get("enum", ["a text"]))


def _suggestion(name: str, given: Mapping[str, Given]) -> str:
    """The valid word that is most similar to what was written, as the end of a message."""
    prop = schema()["properties"][name]
    known = [str(word).lower() for word in prop.get("enum") or prop.get("x-suggest", ())]
    value = given[name].value
    words = value if isinstance(value, list) else [value]
    suggestions = (_did_you_mean(str(word), known) for word in words)
    return next(filter(None, suggestions), "")


def _not_plain(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """Texts that a log or page would interpret. One rule for all inputs, because the schema's
    patterns accept a line end at the end of a text."""
    for name, entry in given.items():
        prop = schema()["properties"][name]
        values = entry.value if isinstance(entry.value, list) else [entry.value]
        texts = (value for value in values if isinstance(value, str))
        if not (prop.get("x-lines") or prop.get("writeOnly") or all(map(is_plain, texts))):
            yield _named(schema()["x-plain"].replace("INPUT", name), given, environ)


def _in_clear(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """The token would be sent without TLS."""
    allowed = "allow-http" in given and given["allow-http"].value is True
    parts = parts_of(str(given["repo"].value)) if "repo" in given else parts_of("")
    if parts.scheme == "http" and not allowed and not is_here(parts.hostname or ""):
        message = (
            "{repo} begins with `http`, so anyone on the network path could read the token; write"
            " `https`, or set {allow-http} to true if that is what you want"
        )
        yield _named(message, given, environ)


def _bad_token(
    given: Mapping[str, Given], environ: Mapping[str, str], read_file: ReadFile
) -> Iterator[str]:
    """Tokens that no request can carry, or that are something else."""
    for name, entry in given.items():
        if schema()["properties"][name].get("format") != "token":
            continue
        value = str(entry.value)
        kind = credentials.looks_like(value, read_file)
        if strange := credentials.strange(value):
            yield _named(
                f"{{{name}}} contains {strange}, which no token does: copy it again",
                given,
                environ,
            )
        elif kind in NO_TOKENS or value.startswith("/"):
            yield _named(f"{{{name}}} must be a token; this is {kind}", given, environ)


NO_TOKENS = ("an empty text", "an unexpanded $VARIABLE")


KEYS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "app-private-key": (
        check_rsa,
        (
            "{app-private-key} must be the private key of a GitHub App: the text of its `.pem`"
            " file, that in Base64, or its path"
        ),
    ),
    "cloud-ssh-private": (
        public_half,
        (
            "{cloud-ssh-private} must be the text of a private SSH key without a passphrase, as"
            " `ssh-keygen -t rsa -m pem -f key.pem` writes it, that in Base64, or its path"
        ),
    ),
}
"""By input: what reads the key, or raises ValueError; and what the input must be."""


def _bad_key(
    given: Mapping[str, Given], environ: Mapping[str, str], read_file: ReadFile
) -> Iterator[str]:
    """Keys that cannot be read, or not without a passphrase."""
    for name, (read, message) in KEYS.items():
        if name not in given:
            continue
        text = str(given[name].value)
        try:
            read(text)
        except ValueError:
            yield _named(message + credentials.instead(text, read_file), given, environ)


def _open_mirror(given: Mapping[str, Given], environ: Mapping[str, str]) -> Iterator[str]:
    """GitLab's checksums are next to the programs, so a mirror decides what runs; over plain http,
    so does anyone on the network path. Allowed if GitLab itself is used over http as well."""
    mirror, repo = (
        parts_of(str(given[name].value) if name in given else "")
        for name in ("runner-downloads", "repo")
    )
    if mirror.scheme == "http" and mirror[:2] != repo[:2]:
        yield _named(
            "{runner-downloads} must begin with `https://`: the program from there is executed, and"
            " checked only against the list of checksums next to it",
            given,
            environ,
        )


def strangers(
    given: Mapping[str, Given], environ: Mapping[str, str], read_file: ReadFile
) -> Iterator[str]:
    """The job runs code that anyone may have written."""
    if "allow-forks" in given and given["allow-forks"].value is True:
        return
    strangers_of_jobs = (job.stranger(read_file) for job in job_environments(environ))
    for stranger in filter(None, strangers_of_jobs):
        message = (
            f"this job is for code from {plain(stranger)}: anyone may have written it, and it would"
            " run on your machine, beside your secrets; review it and push it to a branch of your"
            " own, or set {allow-forks} to true if you trust such code"
        )
        yield _named(message, given, environ)


def missing(given: Mapping[str, Given], environ: Mapping[str, str], *, here: bool) -> Iterator[str]:
    """Inputs that the command needs and that have no default. `here`: whether `cloud` was given as
    `local`, and is therefore not in `given`."""
    forges = " or ".join(f"`{name}`" for name in ForgeName)
    why = withheld(environ)
    clouds = ", ".join(f"`{name}`" for name in ProviderName)
    in_ci = any(job.is_here for job in job_environments(environ))
    messages = {
        "repo": "{repo} is missing: give the repository's URL, or run this in a CI job",
        "driver": f"{{driver}} is missing: the repository's address does not say whether it is"
        f" {forges}, the two that cml-runner knows",
        "token": "{token} is missing: put a token that may register runners into the variable"
        " REPO_TOKEN" + (f"; {why}" if why else ""),
        "name": "{name} is missing: write `cml-runner destroy NAME`",
        "cloud": f"{{cloud}} is missing: write the cloud that has the machines, one of {clouds}",
        "place": f"{{cloud}} is missing: write a cloud ({clouds}), or `local` to make the machine"
        " of this job itself the runner",
        "run-id": "{run-id} is missing: write the ID of the run to restart, or run this in a"
        " workflow `on: workflow_run` or `on: schedule`",
    }
    for name in _lacking(given, may_be_here=here or not in_ci):
        yield _named(messages[name], given, environ)


def _lacking(given: Mapping[str, Given], *, may_be_here: bool) -> Iterator[str]:
    """Names of messages. `may_be_here`: whether a launch without a cloud is for this machine."""
    if "repo" not in given:
        yield "repo"
    elif "driver" not in given and str(given["repo"].value).startswith("http"):
        yield "driver"
    if not {"token", "app-id", "app-private-key"} & given.keys():
        yield "token"
    command = given["command"].value if "command" in given else LAUNCH
    if command == LAUNCH and "cloud" not in given and not may_be_here:
        yield "place"
    if command == "destroy" and "name" not in given:
        yield "name"
    if command in ("destroy", "reap") and "cloud" not in given:
        yield "cloud"
    if command == "restart" and "run-id" not in given:
        yield "run-id"


def _named(message: str, given: Mapping[str, Given], environ: Mapping[str, str]) -> str:
    """Replaces `{name}` with the user's own spelling, and `{a|b}` with the first that was given."""
    in_ci = any(job.is_here for job in job_environments(environ))

    def spelled(match: re.Match[str]) -> str:
        names = match[1].split("|")
        name = next((name for name in names if name in given), names[0])
        if name not in given:
            return f"input {name}" if in_ci else f"--{name}"
        return _spelled(name, given[name])

    return re.sub(r"\{([a-z|-]+)\}", spelled, message)


def _spelled(name: str, entry: Given) -> str:
    """As the user wrote it, with its value unless that is secret or long."""
    prop = schema()["properties"][name]
    if prop.get("writeOnly") or prop.get("format") == "script" or entry.value is True:
        return entry.source
    value = entry.text or str(entry.value)
    value = plain(re.sub(r"//[^/@\s]+@", "//***@", value))  # an address may contain credentials
    if entry.source.startswith("--"):
        return f"{entry.source}={value}"
    return f"{entry.source} ({value})"


def _did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    close = [] if word in known else get_close_matches(word, list(known), 1)
    return f"; did you mean `{prefix}{close[0]}`?" if close else ""
