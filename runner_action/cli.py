"""The entry point: reads arguments and environment, constructs the collaborators, runs the command,
writes the outputs and returns the exit code."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runner_action import (
    ci,
    environment,
    files,
    forges,
    guarding,
    inputs,
    providers,
    secret_sources,
)
from runner_action.ci import job, report
from runner_action.ci.base import LEVELS, Front
from runner_action.ci.cml import cml_line
from runner_action.ci.ordinals import Ordinals, State
from runner_action.ci.redacted import Redacted
from runner_action.commandline import flags_of, overview, parser_of
from runner_action.errors import Cancelled, CredentialsError, InputError, RunnerActionError
from runner_action.forges.base import Forge
from runner_action.model import Launched, Report, Run
from runner_action.plain import lines, parts_of
from runner_action.redaction import Redaction
from runner_action.request import LaunchRequest, RestartRequest, Reuse
from runner_action.stopping import handled_by, signals
from runner_action.waiting import Clock, SystemClock

if TYPE_CHECKING:
    from runner_action.runners.siblings import Siblings

BUG_EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""
log = logging.getLogger(__name__)


def main(argv: Sequence[str], environ: Mapping[str, str], clock: Clock | None = None) -> int:
    """Runs a command, `launch` if none is given, and returns the exit code. `clock`: the time by
    which leases end, for tests."""
    began = time.monotonic()
    read_file = _reading(environ)
    redact = Redaction(lambda: secret_sources.secrets_of(environ, read_file))
    front = Redacted(ci.front_for(environ, as_json="--json" in argv), redact)
    try:
        if argv[:1] in (["--help"], ["-h"], ["help"]):
            sys.stdout.write(overview())
            return 0
        if argv[:1] == ["sandbox"]:
            return _sandbox(argv[1:])
        if argv[:1] == ["permissions"]:
            return _permissions(argv[1:], environ)
        flags, unknown = flags_of(argv)
        raw = inputs.Raw(flags=flags, environ=environ, unknown=unknown)
        for secret in inputs.secrets(raw, read_file):
            front.mask(secret)
        command = inputs.command_of(raw)
        if command in inputs.EVERYWHERE:
            return _manage(raw, environ, front, clock or SystemClock())
        # `launch` reports an unknown command together with all other problems.
        return _COMMANDS.get(command, _launch)(raw, environ, front, began)
    except RunnerActionError as error:
        front.error(_with_reason(error, environ))
        return error.exit_code
    except Cancelled as cancelled:
        front.error(
            RunnerActionError(f"Stopped by signal {cancelled.exit_code - 128}.", cancelled.hint)
        )
        return cancelled.exit_code
    except Exception:  # noqa: BLE001  every bug is reported, and has an exit code
        front.crash(traceback.format_exc())
        return BUG_EXIT_CODE


def _with_reason(error: RunnerActionError, environ: Mapping[str, str]) -> RunnerActionError:
    """The error, with why the CI may not have given the credentials to this job."""
    why = forges.withheld(environ)
    if why and isinstance(error, CredentialsError):
        error.hint = f"{error.hint} If they are set, {why}.".strip()
    return error


def _sandbox(argv: Sequence[str]) -> int:
    try:
        from runner_action.sandbox import demo
    except ImportError as error:
        hint = (
            "Install it with `pip install 'cml-runner[sandbox]'`, or use `make demo` in a checkout."
        )
        raise InputError(
            [f"the sandbox is an optional extra, and {error.name} is missing"], hint
        ) from None
    return demo.main(argv)


def _permissions(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Prints the permissions that a launch with these inputs needs at its cloud, or at GitHub or
    GitLab."""
    from runner_action.commands.permissions import SERVICES, permissions

    if argv[:1] in (["--help"], ["-h"]):
        parser_of("permissions").parse_args(argv[:1])
    service = argv[0] if argv else ""
    if service not in SERVICES:
        known = ", ".join(f"`{name}`" for name in SERVICES)
        usage = f"permissions must be followed by one of {known}, and by the inputs of the launch"
        raise InputError([usage])
    flags, unknown = flags_of(argv[1:])
    raw = inputs.Raw(flags=flags, environ=environ, unknown=unknown)
    text = permissions(
        service, raw, _reading(environ), lambda warning: sys.stderr.write(f"{warning}\n")
    )
    sys.stdout.write(lines(text))
    return 0


def _launch(raw: inputs.Raw, environ: Mapping[str, str], front: Front, began: float) -> int:
    front.forget()
    request, warnings = inputs.parse(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        first = job.run_of(environ, request.token)
        ordinals = job.ordinals_of(environ, first)
        siblings = _siblings(first, ordinals, request)
        forge = partial(_forge, request, environ, began + request.launch_timeout)
        if request.cloud is None:
            return _local(request, siblings, forge(), environ, front, began)
        from runner_action.commands.launch import Launch

        clock = SystemClock()
        provider = partial(
            providers.provider_for, request.cloud, environ, job.id_tokens(environ), clock
        )

        def publish(finished: Report) -> None:
            for launched in finished.launched:
                log.info("%s", cml_line(launched, request))
            front.done(report.outputs(finished.launched), report.summary(finished, request))
            ordinals.succeeded()

        def remember(names: Sequence[str]) -> None:
            front.remember(names)
            ordinals.remember(names)

        with signals(clock) as received:
            connect = partial(siblings.connect, request, forge, clock)
            launch = Launch(request, siblings, connect, provider, clock, began, remember, received)
            launch.launch(publish)
    return 0


def _siblings(first: Run, ordinals: Ordinals, request: LaunchRequest) -> Siblings:
    """The other launches of this step. Takes an ordinal for this launch, unless it is a dry
    run."""
    from runner_action.runners.rollback import Leftover
    from runner_action.runners.siblings import Siblings

    if request.dry_run:
        return Siblings(first)
    last = ordinals.take()
    entries = ordinals.killed() if request.cloud else []
    killed = [Leftover(first.nth(entry.ordinal), entry.names) for entry in entries]

    def swept(run: Run) -> None:
        ordinals.note(State.DELETED, ordinal=run.ordinal)

    return Siblings(first, ordinals.take, killed, swept, last)


def _cleanup(raw: inputs.Raw, environ: Mapping[str, str], front: Front, _began: float) -> int:
    """`cleanup`: the step after the job, with the inputs of its launch."""
    from runner_action.runners.context import Context
    from runner_action.runners.rollback import cleanup
    from runner_action.runners.siblings import leftovers_of, search

    names = front.remembered()
    none = "this job created no runner, or has already deleted it" if names == [] else ""
    if any(each.succeeded for each in forges.job_environments(environ)):
        return _nothing_to_do(front, none or "this job succeeded, and its runner is in use")
    try:
        request, warnings = inputs.parse(raw, _reading(environ))
    except InputError:  # which the launch has reported
        why = "the launch had no valid inputs, so it created nothing"
        return _nothing_to_do(front, none or why)
    if request.cloud is None:
        return _nothing_to_do(front, none or "the launch was for this machine")
    clock, first = SystemClock(), job.run_of(environ, request.token)
    ordinals = job.ordinals_of(environ, first)
    stored = {entry.ordinal: entry.names for entry in ordinals.left()}
    leftovers = leftovers_of(first, names or (), stored)
    # A turn is taken before anything is stored.
    if not leftovers and names is not None and request.reuse is not Reuse.ANY:
        return _nothing_to_do(front, none)
    with _logging(front, request.log, warnings), signals(clock) as received:
        forge = _forge(request, environ)
        provider = providers.provider_for(request.cloud, environ, job.id_tokens(environ), clock)
        received.shield()
        context = Context(request.repository, forge, provider, clock)
        leftovers = leftovers or search(first, request, context)
        if not leftovers and names is not None:
            return _nothing_to_do(front, none)
        cleanup(leftovers, request, context, received.left)
        front.remember([])
        for ordinal in stored:
            ordinals.note(State.DELETED, ordinal=ordinal)
    return 0


def _nothing_to_do(front: Front, why: str) -> int:
    with _logging(front, "info", []):
        log.info("Nothing to clean up: %s.", why)
    return 0


def _local(
    request: LaunchRequest,
    siblings: Siblings,
    forge: Forge,
    environ: Mapping[str, str],
    front: Front,
    began: float,
) -> int:
    """`launch` without a cloud: this machine is the runner. Returns after the runner has left."""
    from runner_action.commands import local

    def publish(launched: Launched) -> None:
        launched = replace(launched, launch_seconds=round(time.monotonic() - began, 2))
        log.debug("%s", cml_line(launched, request))
        finished = Report(launched=(launched,))
        front.done(report.outputs([launched]), report.summary(finished, request))

    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    with signals(SystemClock()):
        surroundings = local.Surroundings(
            environ=environ,
            cache=(Path(caches) / "cml-runner").resolve(),
            passing_signals=_passing_signals,
        )
        return local.live(request, siblings, forge, surroundings, publish)


def _restart(raw: inputs.Raw, environ: Mapping[str, str], front: Front, _began: float) -> int:
    from runner_action.commands.restart import restart

    request, warnings = inputs.parse_restart(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        clock = SystemClock()
        forge = forges.rerunning_for(request, _api_url(request, environ))
        guard = partial(forges.configured, request.forge, environ)
        with signals(clock):
            outcome = restart(request, guarding.guarded(forge, guard), clock)
        front.done({"restarted": outcome.restarted}, outcome.summary)
    return 0


def _manage(raw: inputs.Raw, environ: Mapping[str, str], front: Front, clock: Clock) -> int:
    """`status`, `destroy` and `reap`: what launches of this repository have created."""
    request, warnings = inputs.parse(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        with signals(clock):
            outputs, summary = _managed(inputs.command_of(raw), request, environ, clock)
        front.done(outputs, summary)
    return 0


def _managed(
    command: str, request: LaunchRequest, environ: Mapping[str, str], clock: Clock
) -> tuple[dict[str, str], str]:
    """Outputs and summary of `status`, `destroy` or `reap`."""
    from runner_action.commands import destroy, reap, status
    from runner_action.runners.context import Context

    forge = _forge(request, environ)
    if request.cloud is None:
        return status.status(request.repository, forge, None, clock)
    provider = providers.provider_for(request.cloud, environ, job.id_tokens(environ), clock)
    regions = reap.regions_of(request.cloud, provider)
    if command == "status":
        return status.status(request.repository, forge, provider, clock, regions)
    context = Context(request.repository, forge, provider, clock)
    if command == "destroy" and request.name:
        removed = destroy.destroy(request.name, context, regions, dry_run=request.dry_run)
    else:
        removed = reap.reap(context, regions, dry_run=request.dry_run)
    return reap.result_of(removed, request.dry_run)


_COMMANDS = {"launch": _launch, "restart": _restart, "cleanup": _cleanup}


def _forge(request: LaunchRequest, environ: Mapping[str, str], until: float | None = None) -> Forge:
    """The client of the request's forge, with the job's own API URL and certificates if it is the
    same. `until`: when its requests are no longer repeated, by `time.monotonic`."""
    api_url, certificates = _api_url(request, environ), _certificates(request, environ)
    forge = forges.forge_for(request, api_url, certificates, until)
    return guarding.guarded(forge, partial(forges.configured, request.forge, environ))


def _api_url(request: LaunchRequest | RestartRequest, environ: Mapping[str, str]) -> str | None:
    """The API URL in the environment of the job, if the repository is on the same server; None
    otherwise, and if it would replace https by http."""
    traits = forges.traits_of(request.forge)
    api = environ.get(traits.api_variable)
    # A GitLab may have a path below its host.
    server = environ.get(traits.server_variable, "").rstrip("/")
    if not (api and server and f"{request.repository.url}/".startswith(f"{server}/")):
        return None
    if not parts_of(api).hostname:
        raise InputError([f"{traits.api_variable} must be an address such as https://host/api"])
    downgrade = request.repository.url.startswith("https://") and not api.startswith("https://")
    return None if downgrade else api


def _reading(environ: Mapping[str, str]) -> Callable[[str], str | None]:
    """A function that reads files, but follows no link out of the job's checkout."""
    trees = [job.checkout for job in forges.job_environments(environ)]
    return partial(files.text_of, trees=trees)


def _certificates(request: LaunchRequest, environ: Mapping[str, str]) -> str | None:
    """The certificates (PEM) by which the CI job trusts the request's forge."""
    return _reading(environ)(forges.job_environment(request.forge, environ).certificates_file)


@contextmanager
def _logging(front: Front, level: str, warnings: Sequence[str]) -> Iterator[None]:
    own, handler = logging.getLogger("runner_action"), front.handler()
    own.setLevel(LEVELS[level])
    own.addHandler(handler)
    # Without a handler Python would print libraries' warnings itself, past the filter; also those
    # of threads that are at work after the end.
    logging.lastResort = logging.NullHandler()
    everything, libraries = logging.getLogger(), _libraries(front, level)
    everything.addHandler(libraries)
    for warning in warnings:
        log.warning("%s", warning)
    try:
        yield
    finally:
        own.removeHandler(handler)
        everything.removeHandler(libraries)


def _libraries(front: Front, level: str) -> logging.Handler:
    """Where records of libraries go: they are written only for debugging."""
    if LEVELS[level] > logging.DEBUG:
        return logging.NullHandler()
    handler = front.handler()
    handler.addFilter(lambda record: not record.name.startswith("runner_action"))
    return handler


@contextmanager
def _passing_signals(ask: Callable[[], None]) -> Iterator[None]:
    """Passes every signal on to the agent: it leaves after the first, and at once after the
    second."""
    with handled_by(lambda *_: ask()):
        yield


def run() -> int:
    environ = environment.tidied(os.environ)
    for name in set(os.environ).difference(environ):  # SDKs read these themselves
        del os.environ[name]
    os.environ.update(environ)
    return main(sys.argv[1:], environ)
