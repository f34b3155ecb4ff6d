"""Which rank is slow, although all take as long: the time until a rank has its own gradients, before it meets others.

An iteration takes every rank as long as the slowest, for all wait for it. What differs is when a rank is ready: from
the beginning of the iteration, through its data and its forward and backward passes, to the moment in which gradients
are summed over the copies of the model. On a GPU both ends are events of its own stream. Inside one copy,
tensor-parallel ranks and pipeline stages wait for each other before that: there it is the copy that is slow, and which
of its ranks this does not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron.core.utils import get_model_config

from contextlm.training.clock import Clock, Mark
from contextlm.training.model_measures import ModelMeasures

if TYPE_CHECKING:
    from contextlm.training.setup import Run

_SLOW = 1.5  # times the median
_LOG_LINES = 3  # in a row
_LEAST_MS = 10.0  # more than the median: what is less is noise of very small models


class OwnWork:
    """Marks the moment in every iteration, from inside megatron-core's schedule."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self._config, self._clock = get_model_config(run.model[0]), clock
        self._sum_gradients = self._config.finalize_model_grads_func
        self._config.finalize_model_grads_func = self._mark_and_sum
        self._mark: Mark | None = None

    def _mark_and_sum(self, *arguments: Any, **options: Any) -> Any:
        self._mark = self._clock.now()
        return self._sum_gradients(*arguments, **options)

    def take(self) -> Mark:
        """The mark of the last iteration."""
        mark, self._mark = self._mark, None
        return self._clock.now() if mark is None else mark

    def close(self) -> None:
        """Give megatron-core its function back."""
        self._config.finalize_model_grads_func = self._sum_gradients


class SlowRank:
    """Finds the rank that is slow at log line after log line."""

    def __init__(self) -> None:
        self._rank, self._times = -1, 0

    def told(self, measures: ModelMeasures) -> tuple[str, ...]:
        """A warning at the third log line in a row, and again after as many; else nothing."""
        slowest, median = measures.own_ms_slowest, measures.own_ms_median
        if slowest <= _SLOW * median or slowest - median <= _LEAST_MS:
            self._times = 0
            return ()
        self._times = self._times + 1 if measures.slowest_rank == self._rank else 1
        self._rank = measures.slowest_rank
        if self._times % _LOG_LINES:
            return ()
        return (
            f"warning: rank {self._rank} is slow: {slowest:.0f} ms an iteration until it has its gradients, the median "
            f"rank takes {median:.0f} ms; all wait for it",
        )
