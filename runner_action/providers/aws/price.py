"""What a spot machine has cost so far, by the history of its pool's price. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any


def cost(history: Iterable[Mapping[str, Any]], since: datetime, until: datetime) -> float | None:
    """USD. `history`: from DescribeSpotPriceHistory, including the last change before `since`;
    each price holds until the next. None: there is no price.

    Spot machines are charged by the second at the current price of their pool.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-instances-history.html
    """
    changes: list[tuple[datetime, float]] = sorted(
        (entry["Timestamp"], float(entry["SpotPrice"]))
        for entry in history
        if entry["Timestamp"] < until
    )
    if not changes:
        return None
    begins = [max(when, since) for when, _ in changes]
    ends = [*begins[1:], until]
    return sum(
        price * (end - begin).total_seconds() / 3600
        for (_, price), begin, end in zip(changes, begins, ends, strict=True)
    )
