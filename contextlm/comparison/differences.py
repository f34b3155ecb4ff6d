"""Paired differences between the arms of a study: of runs with one seed, and the interval over the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from contextlm.analysis.t_interval import Interval, interval
from contextlm.comparison.study import Study

Losses = Mapping[str, Mapping[int, float]]  # arm -> seed -> validation loss


class Difference(NamedTuple):
    """An arm's validation loss minus a baseline's, by seed; below 0 the arm is better.

    Attributes:
        by_seed: seeds for which both have a loss.
        interval: 95%; None for fewer than two seeds.
    """

    arm: str
    baseline: str
    by_seed: dict[int, float]
    interval: Interval | None

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.interval is None:
            return "too few seeds"
        if self.interval.low <= 0 <= self.interval.high:
            return "undecided"
        return "better" if self.interval.mean < 0 else "worse"


def paired_differences(study: Study, losses: Losses) -> list[Difference]:
    """Every arm against every baseline, in the order of the study; each pair once."""
    found = []
    for index, baseline in enumerate(study.baselines):
        for arm in (name for name in study.arms if name not in study.baselines[: index + 1]):
            by_seed = {
                seed: losses[arm][seed] - losses[baseline][seed]
                for seed in study.seeds
                if seed in losses[arm] and seed in losses[baseline]
            }
            known = interval(list(by_seed.values())) if len(by_seed) > 1 else None
            found.append(Difference(arm, baseline, by_seed, known))
    return found
