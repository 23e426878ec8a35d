"""`python -m tests.canaries`: the whole product, or a sample, and how it ended."""

from __future__ import annotations

import sys

from tests.canaries.product import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
