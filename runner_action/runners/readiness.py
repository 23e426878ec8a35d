"""Waiting until machines are runners: the forge says when they are, their consoles say why they
are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from runner_action.errors import AuthError, ForgeError, MachineFailed, ProviderError, TimedOut
from runner_action.forges.base import Forge
from runner_action.model import Instance, Registration
from runner_action.providers.base import Provider
from runner_action.runners import console
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
LOOK_EVERY = 10.0
"""Seconds between looks at instances and their consoles while the forge does not say online."""


class Readiness:
    """The runners of one launch, by name. `stopping` says that nobody waits any more."""

    def __init__(
        self,
        wanted: Mapping[str, tuple[Instance, Registration]],
        forge: Forge,
        provider: Provider,
        clock: Clock,
        stopping: Callable[[], bool],
    ) -> None:
        self._instances = {name: instance for name, (instance, _) in wanted.items()}
        self._registrations = {name: registration for name, (_, registration) in wanted.items()}
        self._forge = forge
        self._provider = provider
        self._clock = clock
        self._stopping = stopping
        self._looked = clock.monotonic()
        self._missing = dict(self._instances)
        self._told = ""

    def wait(self, timeout: float) -> None:
        """Raises MachineFailed with a machine's own reason, or TimedOut with how far the
        machines had come."""
        log.info(
            "Waiting until %s online.",
            "the runner is" if len(self._instances) == 1 else f"{len(self._instances)} runners are",
        )
        try:
            wait_for(self._probe, "the runner to be online", clock=self._clock, timeout=timeout)
        except TimedOut as error:
            words = " ".join(self._last_words(instance) for instance in self._missing.values())
            raise TimedOut(f"{error} {words}", error.hint) from error

    def _probe(self) -> bool | None:
        if self._stopping():
            return True
        try:
            online = self._forge.online({name: self._registrations[name] for name in self._missing})
        except AuthError:
            raise
        except (
            ForgeError
        ) as error:  # an outage of the forge is no reason to end machines that are paid for
            if str(error) != self._told:
                log.warning("%s Asking again.", error)
            self._told = str(error)
            return None
        self._told = ""
        # One that was online is not asked about again: it may have a job already, or have done it
        # and be gone.
        self._missing = {
            name: instance for name, instance in self._missing.items() if name not in online
        }
        # Meanwhile the machines' own word is heard, so that a failure need not wait for the
        # timeout.
        if self._missing and self._clock.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = self._clock.monotonic()
            self._missing = {
                name: instance
                for name, instance in self._missing.items()
                if not self._was_online(instance)
            }
        return None if self._missing else True

    def _was_online(self, instance: Instance) -> bool:
        """By the machine's own word: one for a single short job may have had it between two
        looks, and be gone. Raises MachineFailed with the machine's own reason, if it has one. A
        cloud that does not answer now is asked at the next look.
        """
        try:
            text = self._provider.console(instance)
            if console.was_online(text):
                return True
            why = console.failure(text)
            if why is None:
                now = self._provider.look(instance)
                why = now.trouble or (
                    None if now.alive else "it was ended before its runner was online"
                )
        except ProviderError as error:
            log.debug("%s", error)
            return False
        if why is None:
            return False
        _show(instance, text)
        hint = (
            "The end of its console is shown above." if text else "It left nothing on its console."
        )
        raise MachineFailed(
            f"The machine {instance.id} gave up {console.progress(text)}: {why}", hint
        )

    def _last_words(self, instance: Instance) -> str:
        try:
            text = self._provider.console(instance)
        except ProviderError as error:
            return f"The console of {instance.id} cannot be read: {error}"
        _show(instance, text)
        return f"{instance.id} is {console.progress(text)}."


def _show(instance: Instance, text: str) -> None:
    if text:
        log.error("The console of %s ends:\n%s", instance.id, console.tail(text))
