"""Every life of a machine with a hostile job (`test_machine.py`), and what came of it.

python -m tests.hostile [--sample N]
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from runner_action.model import ForgeName
from tests.hostile.machine import machine, seat_of
from tests.hostile.test_machine import LIVES, live

Life = tuple[ForgeName, bool, str, str]


def lived(life: Life) -> tuple[Life, int, list[str]]:
    forge, restart, variant, end = life
    with machine(
        forge, restart=restart, number=int(threading.current_thread().name.rpartition("_")[2])
    ) as one:
        try:
            live(one, variant, end)
        except Exception as error:  # noqa: BLE001  a life that does not end is a gain
            return life, one.attempts(), [*one.gains(), f"{type(error).__name__}: {error}"]
        stays = [] if seat_of(one) is None else ["its own runner stays on the list"]
        return life, one.attempts(), [*one.gains(), *stays]


def main() -> int:
    words = argparse.ArgumentParser(prog="tests.hostile")
    words.add_argument("--sample", type=int, default=len(LIVES))
    lives = random.Random(23).sample(LIVES, min(words.parse_args().sample, len(LIVES)))
    began = time.monotonic()
    attempts = 0
    gains = 0
    with ThreadPoolExecutor(3) as threads:
        for life, tried, found in threads.map(lived, lives):
            attempts, gains = attempts + tried, gains + len(found)
            for what in found:
                print(f"GAIN {' '.join(map(str, life))}: {what}", flush=True)
    print(
        f"{len(lives)} lives, {attempts} attempts, {gains} gains, in"
        f" {time.monotonic() - began:.0f} s"
    )
    return int(gains > 0)


if __name__ == "__main__":
    sys.exit(main())
