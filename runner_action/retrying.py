"""Plain HTTP where no SDK asks, with the same patience: what is not answered, or not now, is asked again."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

PASSING = (429, *range(500, 600))
SECONDS = 15.0
"""How long a service may say nothing."""


def session() -> requests.Session:
    """For questions, and for what does no harm when it is done twice; some 4 s in all, beside the service's own time."""
    made = requests.Session()
    for scheme in ("https://", "http://"):
        made.mount(scheme, HTTPAdapter(max_retries=Retry(3, backoff_factor=0.6, status_forcelist=PASSING, allowed_methods=None, raise_on_status=False)))
    return made
