"""Python imports this at each start on a machine in the agent's kill matrix."""

from __future__ import annotations

import json
import os
import sys

if os.environ.get("CML_RUNNER_MATRIX"):
    from tests.matrix.agent import answers, effects, source

    program = effects.program_of(sys.orig_argv)
    if program:
        with open(os.environ["CML_RUNNER_MATRIX"]) as told:
            settings = json.load(told)
        source.inject(settings)
        injected = effects.Injected(settings, program)
        answers.inject(injected)
        effects.inject(injected)
