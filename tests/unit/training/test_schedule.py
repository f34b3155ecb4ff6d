"""The learning rate is a function of the iteration alone."""

from __future__ import annotations

import math

import pytest

from contextlm.config.schema import OptimizerConfig
from contextlm.training.schedule import learning_rate

PEAK, LEAST, WARMUP, END = 1e-3, 1e-4, 10, 110
STYLES = ("cosine", "linear", "constant")


def rates(style: str, count: int = 150, **values) -> list[float]:
    """The learning rates of iterations 1, 2, ..., `count`."""
    config = OptimizerConfig(
        **{"lr": PEAK, "min_lr": LEAST, "lr_warmup_iters": WARMUP, "lr_decay_style": style} | values
    )
    return [learning_rate(config, iteration, END) for iteration in range(1, count + 1)]


@pytest.mark.parametrize("style", STYLES)
def test_warm_up_is_linear_and_reaches_the_peak(style):
    assert rates(style)[:WARMUP] == pytest.approx([PEAK * iteration / WARMUP for iteration in range(1, WARMUP + 1)])


def test_cosine():
    values = rates("cosine")
    middle = (WARMUP + END) // 2
    assert values[middle - 1] == pytest.approx((PEAK + LEAST) / 2)
    quarter = WARMUP + (END - WARMUP) // 4
    assert values[quarter - 1] == pytest.approx(LEAST + (PEAK - LEAST) * (1 + math.sqrt(0.5)) / 2)
    assert values[END - 1] == pytest.approx(LEAST)


def test_linear():
    values = rates("linear")
    steps = [before - after for before, after in zip(values[WARMUP - 1 : END - 1], values[WARMUP:END], strict=True)]
    assert steps == pytest.approx([(PEAK - LEAST) / (END - WARMUP)] * (END - WARMUP))
    assert values[END - 1] == pytest.approx(LEAST)


def test_constant():
    assert set(rates("constant")[WARMUP - 1 :]) == {PEAK}


@pytest.mark.parametrize("style", ["cosine", "linear"])
def test_decay_never_rises_and_then_stays(style):
    values = rates(style)
    assert all(before >= after for before, after in zip(values[WARMUP - 1 :], values[WARMUP:], strict=False))
    assert values[END - 1 :] == pytest.approx([LEAST] * (150 - END + 1))


@pytest.mark.parametrize("style", STYLES)
def test_without_warm_up_the_first_update_is_already_near_the_peak(style):
    first = rates(style, lr_warmup_iters=0)[0]
    assert 0.98 * PEAK < first <= PEAK


@pytest.mark.parametrize("style", STYLES)
def test_warm_up_to_the_very_end(style):
    """As many iterations of warm-up as of training: no division by zero."""
    values = rates(style, count=END, lr_warmup_iters=END)
    assert values[:-1] == pytest.approx([PEAK * iteration / END for iteration in range(1, END)])
    assert math.isfinite(values[-1])


def test_no_iteration_is_without_a_rate():
    assert all(rate > 0 for style in STYLES for rate in rates(style))
