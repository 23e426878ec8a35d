"""The one door: argv and environment in, collaborators built, outputs written, exit code out."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner_action import ci, files, inputs
from runner_action.ci import job, report
from runner_action.ci.base import LEVELS, Front
from runner_action.ci.cml import cml_line
from runner_action.commandline import flags_of, overview, parser_of
from runner_action.errors import Cancelled, InputError, RunnerActionError
from runner_action.forges import USUAL, job_environment, job_environments, traits_of
from runner_action.forges.base import Forge
from runner_action.model import ForgeName, Launched, ProviderName, Report, Run
from runner_action.plain import lines
from runner_action.request import LaunchRequest, RestartRequest
from runner_action.stopping import Signals
from runner_action.waiting import Clock, SystemClock

BUG_EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""
log = logging.getLogger(__name__)
PLACES = (*ProviderName, *ForgeName)
"""What `permissions` prints the needs of a launch for."""
EVERYBODYS = (
    "Without `repo` this policy lets a launch delete the machines of every repository that launches"
    " in the account, and read their consoles: add `--repo=OWNER/NAME`."
)


def main(argv: Sequence[str], environ: Mapping[str, str], clock: Clock | None = None) -> int:
    """The exit code. No command at all is `launch`. `clock`: by which leases end."""
    began = time.monotonic()
    front = ci.front_for(environ, as_json="--json" in argv)
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
        for secret in inputs.secrets(raw):
            front.mask(secret)
        command = inputs.command_of(raw)
        if command in inputs.EVERYWHERE:
            return _look_after(raw, environ, front, clock or SystemClock())
        # A word that is no command is told with all other mistakes.
        return _COMMANDS.get(command, _launch)(raw, environ, front, began)
    except RunnerActionError as error:
        front.error(error)
        return error.exit_code
    except Cancelled as cancelled:
        front.error(
            RunnerActionError(f"Stopped by signal {cancelled.exit_code - 128}.", cancelled.hint)
        )
        return cancelled.exit_code
    except Exception:  # noqa: BLE001  whatever it was, it is told in the same way and has an exit code
        front.crash(traceback.format_exc())
        return BUG_EXIT_CODE


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
    """Prints what a launch with these inputs needs to be allowed, by its cloud, or by GitHub or
    GitLab."""
    from runner_action import forges, providers

    if argv[:1] in (["--help"], ["-h"]):
        parser_of("permissions").parse_args(argv[:1])
    word = argv[0] if argv else ""
    if word not in PLACES:
        known = ", ".join(f"`{name}`" for name in PLACES)
        usage = f"permissions must be followed by one of {known}, and by the inputs of the launch"
        raise InputError([usage])
    flags, unknown = flags_of(argv[1:])
    if word in [*ForgeName]:
        raw = inputs.Raw(flags=flags, environ=environ, unknown=unknown)
        asked = inputs.parse_question(raw, _reading(environ))
        forge = ForgeName(word)
        if asked.forge not in (None, forge):
            where = asked.repository.url if asked.repository else f"driver {asked.forge}"
            raise InputError(
                [f"permissions {word}: {where} belongs to `permissions {asked.forge}`"]
            )
        sys.stdout.write(lines(forges.policy_for(forge, asked.repository, asked.restart)))
        return 0
    raw = inputs.Raw(flags={**flags, "cloud": [word]}, environ=environ, unknown=unknown)
    asked = inputs.parse_question(raw, _reading(environ))
    assert asked.cloud
    by_repository = providers.traits_of(asked.cloud.provider).policy_by_repository
    if asked.repository is None and by_repository:
        sys.stderr.write(EVERYBODYS + "\n")
    policy = providers.policy_for(asked.cloud, asked.forge or USUAL, asked.repository)
    sys.stdout.write(lines(policy))
    return 0


def _launch(raw: inputs.Raw, environ: Mapping[str, str], front: Front, began: float) -> int:
    from runner_action import forges, providers

    front.forget()
    request, warnings = inputs.parse(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        run = job.run_of(environ, request.token)
        forge = partial(_forge, request, environ, began + request.start_timeout)
        if request.cloud is None:
            return _local(request, run, forge(), environ, front, began)
        from runner_action.commands.launch import Launch

        clock = SystemClock()
        provider = partial(
            providers.provider_for, request.cloud, environ, job.id_tokens(environ), clock
        )

        def tell(done: Report) -> None:
            for one in done.launched:
                log.info("%s", cml_line(one, request))
            front.done(report.outputs(done.launched), report.summary(done, request))

        with signals(clock) as heard:
            Launch(request, run, forge, provider, clock, began, front.remember, heard).launch(tell)
    return 0


def _cleanup(raw: inputs.Raw, environ: Mapping[str, str], front: Front, _began: float) -> int:
    """After the job, with the inputs of its launch."""
    from runner_action import forges, providers
    from runner_action.runners.rollback import cleanup

    noted = front.remembered()
    if noted == []:
        return _nothing(front, "this job created no runner, or has already deleted it")
    if any(environment.succeeded for environment in forges.job_environments(environ)):
        return _nothing(front, "this job succeeded, and its runner is in use")
    try:
        request, warnings = inputs.parse(raw, _reading(environ))
    except InputError:  # which the launch has reported
        return _nothing(front, "the launch had no valid inputs, so it created nothing")
    if request.cloud is None:
        return _nothing(front, "the launch was for this machine")
    clock, run = SystemClock(), job.run_of(environ, request.token)
    with _logging(front, request.log, warnings), signals(clock) as heard:
        forge = _forge(request, environ)
        provider = providers.provider_for(request.cloud, environ, job.id_tokens(environ), clock)
        heard.shield()
        cleanup(noted, request, run, forge, provider, clock, heard.left)
        front.remember([])
    return 0


def _nothing(front: Front, why: str) -> int:
    with _logging(front, "info", []):
        log.info("Nothing to clean up: %s.", why)
    return 0


def _local(
    request: LaunchRequest,
    run: Run,
    forge: Forge,
    environ: Mapping[str, str],
    front: Front,
    began: float,
) -> int:
    """This machine as the runner; returns when it has left."""
    from runner_action.commands import local

    def online(one: Launched) -> None:
        told = replace(one, launch_seconds=round(time.monotonic() - began, 2))
        log.debug("%s", cml_line(told, request))
        front.done(report.outputs([told]), report.summary(Report(launched=(told,)), request))

    cache = (
        Path(
            environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
        )
        / "cml-runner"
    ).resolve()
    with signals(SystemClock()):
        return local.live(request, run, forge, environ, cache, _hearing, online)


def _restart(raw: inputs.Raw, environ: Mapping[str, str], front: Front, _began: float) -> int:
    from runner_action import forges
    from runner_action.commands import restart

    request, warnings = inputs.parse_restart(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        clock = SystemClock()
        with signals(clock):
            outcome = restart.restart(
                request, forges.rerunning_for(request, _api_url(request, environ)), clock
            )
        front.done({"restarted": outcome.restarted}, outcome.summary)
    return 0


def _look_after(raw: inputs.Raw, environ: Mapping[str, str], front: Front, clock: Clock) -> int:
    """`status`, `destroy` and `reap`: of what launches of this repository have made."""
    from runner_action import forges, providers
    from runner_action.commands import destroy, reap, status

    request, warnings = inputs.parse(raw, _reading(environ))
    with _logging(front, request.log, warnings):
        problems = list(forges.refusals(request))
        if problems:
            raise InputError(problems)
        with signals(clock):
            forge = _forge(request, environ)
            provider = (
                providers.provider_for(request.cloud, environ, job.id_tokens(environ), clock)
                if request.cloud
                else None
            )
            regions = (
                reap.where_asked(request.cloud, provider) if request.cloud and provider else None
            )
            if provider is None or inputs.command_of(raw) == "status":
                told, text = status.status(request.repository, forge, provider, clock, regions)
            elif request.name and inputs.command_of(raw) == "destroy":
                gone = destroy.destroy(
                    request.name,
                    request.repository,
                    forge,
                    provider,
                    clock,
                    dry_run=request.dry_run,
                    regions=regions,
                )
                told, text = reap.told(gone, request.dry_run)
            else:
                told, text = reap.told(
                    reap.reap(
                        request.repository,
                        forge,
                        provider,
                        clock,
                        dry_run=request.dry_run,
                        regions=regions,
                    ),
                    request.dry_run,
                )
        front.done(told, text)
    return 0


_COMMANDS = {"launch": _launch, "restart": _restart, "cleanup": _cleanup}


def _forge(request: LaunchRequest, environ: Mapping[str, str], until: float | None = None) -> Forge:
    """The request's forge, where and by which authority the job itself knows it. `until`: when
    nobody waits for it any more."""
    from runner_action import forges

    return forges.forge_for(
        request,
        _api_url(request, environ),
        _certificates(request, environ),
        until,
    )


def _api_url(request: LaunchRequest | RestartRequest, environ: Mapping[str, str]) -> str | None:
    """Where the job's own forge says its API is, if that is the forge of the repository."""
    traits = traits_of(request.forge)
    api = environ.get(traits.api_variable)
    # A GitLab may live below its host.
    own = environ.get(traits.server_variable, "").rstrip("/")
    if not (api and own and f"{request.repository.url}/".startswith(f"{own}/")):
        return None
    in_clear = request.repository.url.startswith("https://") and not api.startswith("https://")
    return None if in_clear else api


def _reading(environ: Mapping[str, str]) -> Callable[[str], str | None]:
    """Reads files, those of the job's checkout with care."""
    trees = [job.checkout for job in job_environments(environ)]
    return partial(files.text_of, trees=trees)


def _certificates(request: LaunchRequest, environ: Mapping[str, str]) -> str | None:
    """Text of the authorities by which the CI job trusts the request's forge."""
    return _reading(environ)(job_environment(request.forge, environ).certificates_file)


@contextmanager
def _logging(front: Front, level: str, warnings: Sequence[str]) -> Iterator[None]:
    ours, handler = logging.getLogger("runner_action"), front.handler()
    ours.setLevel(LEVELS[level])
    ours.addHandler(handler)
    for warning in warnings:
        log.warning("%s", warning)
    try:
        yield
    finally:
        ours.removeHandler(handler)


@contextmanager
def signals(clock: Clock) -> Iterator[Signals]:
    """They end what is done here, and tell how much time there is for that."""
    heard = Signals(clock)
    before = {
        number: signal.signal(number, heard.hear)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _hearing(ask: Callable[[], None]) -> Iterator[None]:
    """Every signal is passed on to the agent: the first asks it to leave, the second to leave
    now."""
    before = {
        number: signal.signal(number, lambda *_: ask())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run() -> int:
    return main(sys.argv[1:], dict(os.environ))
