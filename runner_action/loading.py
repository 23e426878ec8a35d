"""A lock under which libraries are imported.

The clients of the cloud and of GitHub or GitLab are loaded in parallel, and both import
`requests`, whose modules import one another in circles. Where two threads would wait for each
other's import, Python hands one of them a module that is only half loaded.
"""

from __future__ import annotations

import threading

ALONE = threading.RLock()
"""Held while modules are imported, never during a request."""
