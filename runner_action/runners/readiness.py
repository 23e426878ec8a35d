"""Waits until runners are online. The forge lists those that are; the consoles of the machines
show why others are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from runner_action.errors import AuthError, ForgeError, MachineFailed, ProviderError, TimedOut
from runner_action.model import Instance, Registration
from runner_action.runners import console
from runner_action.runners.context import Context
from runner_action.waiting import wait_for

log = logging.getLogger(__name__)
LOOK_EVERY = 10.0
"""Seconds between looks at the instances of missing runners, and at their consoles."""


class Readiness:
    """The expected runners of one launch, by name. Once `stopping` returns True, no one needs
    the result any more."""

    def __init__(
        self,
        expected: Mapping[str, tuple[Instance, Registration]],
        context: Context,
        stopping: Callable[[], bool],
    ) -> None:
        self._registrations = {name: registration for name, (_, registration) in expected.items()}
        self._forge = context.forge
        self._provider = context.provider
        self._clock = context.clock
        self._stopping = stopping
        self._looked = self._clock.monotonic()
        self._missing = {name: instance for name, (instance, _) in expected.items()}
        self._logged = ""
        """The last error of the forge that was logged; empty after an answer."""

    def wait(self, timeout: float) -> None:
        """Raises MachineFailed with the reason that a machine reported, or TimedOut with how far
        the missing machines came."""
        count = len(self._missing)
        what = "the runner" if count == 1 else f"{count} runners"
        log.info("Waiting for %s to come online.", what)
        try:
            wait_for(self._probe, f"{what} to come online", clock=self._clock, timeout=timeout)
        except TimedOut as error:
            states = " ".join(self._last_state(instance) for instance in self._missing.values())
            raise TimedOut(f"{error} {states}", error.hint) from error

    def _probe(self) -> bool | None:
        if self._stopping():
            return True
        try:
            online = self._forge.online({name: self._registrations[name] for name in self._missing})
        except AuthError:
            raise
        except ForgeError as error:
            # An outage of the forge is no reason to delete machines that are paid for.
            if str(error) != self._logged:
                log.warning("%s Trying again.", error)
            self._logged = str(error)
            return None
        self._logged = ""
        # A runner that was online is not looked up again: it may have a job by now, or have
        # finished it and left.
        self._missing = {
            name: instance for name, instance in self._missing.items() if name not in online
        }
        # The consoles show a failure long before the timeout.
        if self._missing and self._clock.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = self._clock.monotonic()
            self._missing = {
                name: instance
                for name, instance in self._missing.items()
                if not self._was_online(instance)
            }
        return None if self._missing else True

    def _was_online(self, instance: Instance) -> bool:
        """Whether the machine's console says so: between two looks a runner can come online, run
        a short job and leave. Raises MachineFailed if the machine failed. If the cloud cannot be
        reached, the next look will tell.
        """
        try:
            text = self._provider.console(instance)
            if console.was_online(text):
                return True
            why = console.failure(text)
            if why is None:
                why = _trouble_of(self._provider.look(instance))
        except ProviderError as error:
            log.debug("%s", error)
            return False
        if why is None:
            return False
        _show(instance, text)
        hint = "The last lines of its console are above." if text else "Its console is empty."
        raise MachineFailed(f"Machine {instance.id} failed {console.progress(text)}: {why}", hint)

    def _last_state(self, instance: Instance) -> str:
        try:
            text = self._provider.console(instance)
        except ProviderError as error:
            return f"Could not read the console of {instance.id}: {error}"
        _show(instance, text)
        return f"Machine {instance.id} got stuck {console.progress(text)}."


def _trouble_of(instance: Instance) -> str | None:
    """Why the instance cannot become a runner, as its cloud reports it; None if it still may."""
    if instance.trouble:
        return instance.trouble
    return None if instance.alive else "it was stopped before its runner came online"


def _show(instance: Instance, text: str) -> None:
    if text:
        log.error("Last lines of the console of %s:\n%s", instance.id, console.tail(text))
