"""The errors. The class says what the caller does next, the exit code tells the CI, the hint
tells the person.

    RunnerActionError            1
      InputError                 2   change an input; all problems are reported at once
      ForgeError                 3   GitHub or GitLab refused
        AuthError                3   use another token
        RunnerBusy               3   the runner cannot be removed while it runs a job
      ProviderError              4   the cloud refused
        CredentialsError         4   use other cloud credentials or permissions
        QuotaError               4   request more quota, or try another region
        ConfigurationError       4   the request is not valid on this cloud
          NotOurs                4   use another name: this one is taken, and not touched
        CapacityError            5   try the next placement
      TimedOut                   6   the machine did not come online
      MachineFailed              6   read the machine's message
      Cancelled              128+n   a signal ended the launch; everything was removed

Vendor exceptions never leave their adapter: their texts may contain secrets, and their classes
mean nothing to the caller.
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
    """Inputs are not valid. `problems`: a sentence each, naming the input as the user wrote it;
    `besides`: inputs that are missing."""

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
    """GitHub or GitLab refused, or cannot be reached."""

    exit_code = 3


class AuthError(ForgeError):
    """The forge refused the token. The hint names the missing permission."""


class RunnerBusy(ForgeError):
    """The forge does not remove the runner because it is running a job."""


class ProviderError(RunnerActionError):
    """The cloud refused, or cannot be reached."""

    exit_code = 4


class CredentialsError(ProviderError):
    """Cloud credentials are missing, wrong, or lack a permission: another placement would not
    help."""


class QuotaError(ProviderError):
    """A limit of the account in this region is reached: another region may help."""


class ConfigurationError(ProviderError):
    """The request is not valid on this cloud: another placement would not help."""


class NotOurs(ConfigurationError):
    """A name that this launch needs is taken by something that it did not create. That is neither
    used nor changed nor deleted: only what this launch created is rolled back."""

    def __init__(self, what: str, hint: str = "Choose another `name`.") -> None:
        """`what`: kind, name and place, as in `a machine cml-1 in us-east1-b`."""
        super().__init__(f"There is {what} that this launch did not create.", hint)


class CapacityError(ProviderError):
    """The cloud has no such machine available there: the next placement may help."""

    exit_code = 5


class TimedOut(RunnerActionError):
    """Something did not happen in time."""

    exit_code = 6


class MachineFailed(RunnerActionError):
    """The machine reported why it cannot become a runner, or shut down before it was one."""

    exit_code = 6


class Cancelled(BaseException):
    """A signal stopped the launcher. Not an Exception, so that no recovery code takes it for a
    failure."""

    def __init__(self, signal_number: int, hint: str = "") -> None:
        """`hint`: what happened to what had been created."""
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
        self.hint = hint
