"""Errors that nobody expects of a library. An SDK raises anything for a profile that does not
exist, a file that it cannot parse, an address that is none, or the response of another server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from sysconfig import get_path
from traceback import walk_tb
from types import TracebackType
from typing import Any, TypeVar, cast

from runner_action.errors import RunnerActionError
from runner_action.plain import plain

log = logging.getLogger(__name__)
PACKAGE, LIBRARIES = Path(__file__).parent, Path(get_path("purelib"))
OF_ALL = (
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_", "SSLKEYLOGFILE", "NETRC"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)
"""How the variables begin that the libraries below every SDK read."""
Guard = Callable[[], AbstractContextManager[None]]
Kept = TypeVar("Kept")


@contextmanager
def configured(
    title: str,
    variables: tuple[str, ...],
    environ: Mapping[str, str],
    kind: type[RunnerActionError],
) -> Iterator[None]:
    """Raises an unexpected error of a library as one of this `kind`, which names the variables
    that begin so. What no library was asked for is an error for the user already, or a bug, and
    passes."""
    try:
        yield
    except RunnerActionError:
        raise
    except Exception as error:
        if not _is_of_library(error.__traceback__):
            raise
        log.debug("Where %s's SDK failed:", title, exc_info=True)
        names = sorted(name for name in environ if name.startswith((*variables, *OF_ALL)))
        raise kind(
            f"{title}'s SDK failed ({type(error).__name__}): {plain(str(error))}",
            f"Check these variables, and the files that they name: {', '.join(names) or 'none'}."
            " If they are right, please report this with the output of `--log=debug`.",
        ) from error


def _is_of_library(trace: TracebackType | None) -> bool:
    """Whether a library was the last that was called, of those and this package."""
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(trace)]
    ours = [PACKAGE in file.parents for file in files if {PACKAGE, LIBRARIES} & {*file.parents}]
    return bool(ours) and not ours[-1]


class _Guarded:
    def __init__(self, inner: Any, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        with self._guard():
            value = getattr(self._inner, name)
        if not callable(value):
            return value

        @wraps(value)
        def called(*args: Any, **options: Any) -> Any:
            with self._guard():
                return value(*args, **options)

        return called


def guarded(inner: Kept, guard: Guard) -> Kept:
    """The same object, whose methods are all called within the guard."""
    return cast("Kept", _Guarded(inner, guard))
