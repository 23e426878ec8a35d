"""`python -m runner_action`, and the command `cml-runner`."""

from __future__ import annotations

import gc
import os
import signal
import sys


def run() -> None:
    # The first process of a container hears no signal that it has no handler for. As long as
    # nothing is made, this is how to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda heard, _: os._exit(128 + heard))
    from runner_action import cli

    # A process of some seconds: what it allocates while loading libraries is needed to its end, and
    # looking for garbage is time lost.
    gc.disable()
    try:
        code: int | str | None = cli.run()
    except SystemExit as stopped:  # argparse, after --help
        code = stopped.code
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: it would wait for threads whose answers nobody wants any more.
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    run()
