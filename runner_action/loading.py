"""Libraries are loaded by one thread at a time. Forge and cloud load theirs side by side, and
both bring `requests`, whose modules import one another in circles: of two threads that load such
a library Python shows one a half loaded module, so that neither waits for ever.
"""

from __future__ import annotations

import threading

ALONE = threading.RLock()
"""Held while modules are imported; not while anybody is asked anything."""
