"""Programs in alternation: what else the machine does meets all of them, and a ratio of one round is fair.

Read next: `speed.py`, which prints what is measured here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """The median over the rounds, and the interval in which the true one lies with 95% confidence."""

    median: float
    low: float
    high: float

    def verdict(self, target: float) -> str:
        """`missed` only if the whole interval is below the target."""
        if self.median >= target:
            return "met"
        return "missed" if self.high < target else "within noise"


def seconds_by_round(
    steps: Mapping[str, Callable[[], object]], num_rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each step in each round, by name.

    The order is always the same: each step then finds the caches full of another one's numbers. Were it turned round,
    the first and the last would follow themselves.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_rounds):
        for name, step in steps.items():
            began = clock()
            step()
            seconds[name].append(clock() - began)
    return seconds


def speed_ratio(seconds: Sequence[float], peer_seconds: Sequence[float]) -> Ratio:
    """How fast something is, the peer of the same rounds being 1."""
    ratios = sorted(peer / own for own, peer in zip(seconds, peer_seconds, strict=True))
    rank = interval_rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[rank], ratios[-1 - rank])


def interval_rank(count: int) -> int:
    """The interval of the median of `count` values: from that value of this rank (0: the smallest) to its mirror.

    Each value lies below the true median with probability 1/2, whatever the noise looks like. Fewer than six values are
    too few for the confidence; theirs is the interval from the smallest to the largest.
    """
    below, rank = 0.5**count, 0
    while below + math.comb(count, rank + 1) * 0.5**count <= (1 - CONFIDENCE) / 2:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    return rank
