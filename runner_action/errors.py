"""The catalogue of errors: a class says what the caller does next, its exit code says so to the
CI, its hint says so to the person.

    RunnerActionError            1
      InputError                 2   change an input; all problems are told at once
      ForgeError                 3   the forge refused
        AuthError                3   give another token
        RunnerBusy               3   the runner may not be removed while a job runs on it
      ProviderError              4   the cloud refused
        CredentialsError         4   give other cloud credentials or permissions
        QuotaError               4   ask for more quota, or go to another region
        ConfigurationError       4   the request is wrong for this cloud
          NotOurs                4   give another name: something else has it, and stays
        CapacityError            5   go to the next placement
      TimedOut                   6   the machine did not come online
      MachineFailed              6   read what the machine said
      Cancelled              128+n   a signal ended the launch; everything was removed

Vendor exceptions never leave their adapter: their texts may hold secrets and their classes say
nothing to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence


class RunnerActionError(Exception):
    """What happened (`str`), and what to do about it (`hint`)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(RunnerActionError):
    """Inputs that cannot be used. `problems`: one sentence each, naming the input as the user
    wrote it; `besides`: what is not given at all."""

    exit_code = 2

    def __init__(
        self, problems: Sequence[str], hint: str = "", besides: Sequence[str] = ()
    ) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {number}. {text}" for number, text in enumerate(problems, 1))
        lines += "".join(f"\n  Besides, {text}" for text in besides)
        super().__init__(
            f"{count} with the inputs:\n{lines}",
            hint or "Nothing was created. `cml-runner launch --help` lists every input.",
        )
        self.problems = tuple(problems)
        self.besides = tuple(besides)


class ForgeError(RunnerActionError):
    """GitHub or GitLab refused, or could not be reached."""

    exit_code = 3


class AuthError(ForgeError):
    """The forge refused the token; the hint names the permission that is missing."""


class RunnerBusy(ForgeError):
    """The forge keeps the runner because a job runs on it."""


class ProviderError(RunnerActionError):
    """The cloud refused, or could not be reached."""

    exit_code = 4


class CredentialsError(ProviderError):
    """Cloud credentials are missing, wrong, or lack a permission: another placement would not
    help."""


class QuotaError(ProviderError):
    """An account limit of the region is reached: another region may help."""


class ConfigurationError(ProviderError):
    """The request is wrong for this cloud: another placement would not help."""


class NotOurs(ConfigurationError):
    """A name that this launch needs is taken by something that it did not create. That is neither
    used nor changed nor deleted: only what this launch created is rolled back."""

    def __init__(self, what: str, hint: str = "Choose another `name`.") -> None:
        """`what`: kind, name and place, as in `a machine cml-1 in us-east1-b`."""
        super().__init__(f"There is {what} that this launch did not create.", hint)


class CapacityError(ProviderError):
    """The cloud has no such machine there now: the next placement may help."""

    exit_code = 5


class TimedOut(RunnerActionError):
    """What was waited for did not happen in time."""

    exit_code = 6


class MachineFailed(RunnerActionError):
    """The machine itself reported why it cannot become a runner, or ended before it was one."""

    exit_code = 6


class Cancelled(BaseException):
    """A signal asked the launcher to stop. Not an Exception, so that no recovery code takes it
    for a failure."""

    def __init__(self, signal_number: int, hint: str = "") -> None:
        """`hint`: what became of what had been made."""
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
        self.hint = hint
