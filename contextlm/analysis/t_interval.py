"""The mean over a few seeds and its confidence interval: Student's t, without scipy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """Mean of some values, and the half width of the interval around it."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Two-sided interval for the mean of normally distributed values, one per seed.

    mean +- t s / sqrt(n), with s the standard deviation over n - 1 and t the quantile for n - 1 degrees of freedom.

    Raises:
        ValueError: fewer than two values, which say nothing about their spread.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} value(s): an interval needs at least 2 seeds")
    spread = statistics.stdev(values) / math.sqrt(count)
    return Interval(statistics.fmean(values), t_quantile(confidence, count - 1) * spread)


def t_quantile(confidence: float, degrees: int) -> float:
    """t with P(|T| <= t) = `confidence` for Student's distribution with `degrees` >= 1 degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):  # bisection in the angle, which is bounded where t is not
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)), the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for k in range(2 + is_odd, degrees + 1, 2):  # degrees // 2 terms, each from the one before
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total
