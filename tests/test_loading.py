"""Forge and cloud load their libraries in two threads, and share some of them: a library that
imports itself in circles must not be met half loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED_SIDE_BY_SIDE = """
import random, sys, threading, time
random.seed(sys.argv[3])

class Slow:
    '''Whoever loads a part of what is shared is overtaken.'''
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("requests", "urllib3", "cryptography", "jwt"):
            time.sleep(random.random() * 0.03)

sys.meta_path.insert(0, Slow())
from runner_action import forges, inputs, providers
from runner_action.waiting import SystemClock
flags = {"cloud": [sys.argv[1]], "repo": [sys.argv[2]], "token": ["x"]}
request, _ = inputs.parse(inputs.Raw(flags=flags, environ={}), lambda _: None)
problems = []

def load(what):
    try:
        what()
    except ImportError as error:
        problems.append(error)
    except Exception:
        pass  # no credentials here

def provider():
    providers.provider_for(request.cloud, {}, None, SystemClock())

def forge():
    forges.forge_for(request)

threads = [threading.Thread(target=load, args=(what,)) for what in (provider, forge)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(str(problems) if problems else 0)
"""


FORGES = {"github": "https://github.com/octo/train", "gitlab": "https://gitlab.com/octo/train"}
CASES = [(cloud, forge, 1) for cloud in ("aws", "azure", "gcp", "kubernetes") for forge in FORGES]


@pytest.mark.parametrize(
    ("cloud", "forge", "seed"), [*CASES, *(("kubernetes", "github", seed) for seed in (2, 3, 4))]
)
def test_forge_and_cloud_load_side_by_side(cloud: str, forge: str, seed: int) -> None:
    command = [sys.executable, "-c", LOADED_SIDE_BY_SIDE, cloud, FORGES[forge], str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
