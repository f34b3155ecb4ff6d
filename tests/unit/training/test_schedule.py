"""The learning rate is a function of the iteration alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from contextlm.config.schema import OptimizerConfig
from contextlm.training.schedule import learning_rate, weight_decay

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


def megatron_scheduler(config: OptimizerConfig, iteration: int, decay_iters: int, **weight_decays):
    """megatron-core's own scheduler after `iteration` steps."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    scheduler = OptimizerParamScheduler(
        SimpleNamespace(param_groups=[{}]),
        init_lr=0.0,
        max_lr=config.lr,
        min_lr=config.min_lr,
        lr_warmup_steps=config.lr_warmup_iters,
        lr_decay_steps=decay_iters,
        lr_decay_style=config.lr_decay_style,
        wsd_decay_steps=config.lr_wsd_decay_iters,
        lr_wsd_decay_style=config.lr_wsd_decay_style,
        **{"start_wd": 0.1, "end_wd": 0.1, "wd_incr_steps": decay_iters, "wd_incr_style": "constant"} | weight_decays,
    )
    scheduler.step(iteration)
    return scheduler.optimizer.param_groups[0]


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize(
    ("style", "shape"),
    [
        *((style, "exponential") for style in (*STYLES, "inverse-square-root")),
        *(("WSD", shape) for shape in ("exponential", "linear", "cosine", "minus_sqrt")),
    ],
)
def test_is_megatrons_learning_rate(style, shape, warmup):
    values = {"lr_decay_style": style, "lr_wsd_decay_style": shape, "lr_wsd_decay_iters": 30, "lr_warmup_iters": warmup}
    config = OptimizerConfig(lr=PEAK, min_lr=LEAST, **values)
    found = [learning_rate(config, iteration, END) for iteration in range(1, END + 20)]
    expected = [megatron_scheduler(config, iteration, END)["lr"] for iteration in range(1, END + 20)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert style == "constant" or min(found[END:]) == max(found[END:]) == LEAST


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_is_megatrons_weight_decay(style):
    config = OptimizerConfig(weight_decay_incr_style=style, start_weight_decay=0.02, end_weight_decay=0.3)
    ends = {"start_wd": 0.02, "end_wd": 0.3, "wd_incr_style": style}
    found = [weight_decay(config, iteration, END) for iteration in range(1, END + 20)]
    expected = [megatron_scheduler(config, iteration, END, **ends)["weight_decay"] for iteration in range(1, END + 20)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert weight_decay(OptimizerConfig(weight_decay=0.2), 7, END) == 0.2
