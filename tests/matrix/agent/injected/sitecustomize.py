"""Python imports this at each start on a machine in the agent's kill matrix. A pod's does not, as
it looks at no variables: there this is the program, which then runs the agent's."""

from __future__ import annotations

import json
import os
import runpy
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

if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
