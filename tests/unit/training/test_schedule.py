"""Learning rate and weight decay are functions of the position in the run alone, Megatron-LM's one update ahead."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from contextlm.config.batch_ramp import batch_size_at
from contextlm.config.fields import build
from contextlm.config.schedule_lengths import ScheduleLengths, schedule_lengths
from contextlm.config.schema import OptimizerConfig
from contextlm.training.schedule import learning_rate, weight_decay

PEAK, LEAST, WARMUP, END = 1e-3, 1e-4, 10, 110
STYLES = ("cosine", "linear", "constant")


def rates(style: str, count: int = 150, **values) -> list[float]:
    """The learning rates of iterations 1, 2, ..., `count`."""
    config = OptimizerConfig(
        **{"lr": PEAK, "min_lr": LEAST, "lr_warmup_iters": WARMUP, "lr_decay_style": style} | values
    )
    lengths = ScheduleLengths(END, END, config.lr_warmup_iters)
    return [learning_rate(config, iteration, lengths) for iteration in range(1, count + 1)]


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


def megatron_scheduler(config: OptimizerConfig, lengths: ScheduleLengths, **weight_decays):
    """megatron-core's own scheduler, at its start."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    return OptimizerParamScheduler(
        SimpleNamespace(param_groups=[{}]),
        init_lr=0.0,
        max_lr=config.lr,
        min_lr=config.min_lr,
        lr_warmup_steps=lengths.warmup,
        lr_decay_steps=lengths.decay,
        lr_decay_style=config.lr_decay_style,
        wsd_decay_steps=lengths.wsd_decay,
        lr_wsd_decay_style=config.lr_wsd_decay_style,
        **{"start_wd": 0.1, "end_wd": 0.1, "wd_incr_steps": lengths.run, "wd_incr_style": "constant"} | weight_decays,
    )


def megatron_values(scheduler, increments) -> tuple[list[float], list[float]]:
    """Learning rates and weight decays of Megatron-LM's updates, which steps its scheduler after each."""
    rates, decays = [], []
    for increment in increments:
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        decays.append(scheduler.optimizer.param_groups[0]["weight_decay"])
        scheduler.step(increment)
    return rates, decays


def assert_one_update_ahead(found: list[float], megatrons: list[float]) -> None:
    """Ours of update n are Megatron-LM's of update n + 1, which, unless all are the same, are not those of update n."""
    assert found[:-1] == pytest.approx(megatrons[1:], rel=1e-12)
    assert len(set(found)) == 1 or found != pytest.approx(megatrons, rel=1e-6)


SHAPES = [
    *((style, "exponential") for style in (*STYLES, "inverse-square-root")),
    *(("WSD", shape) for shape in ("exponential", "linear", "cosine", "minus_sqrt")),
]


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize(("style", "shape"), SHAPES)
def test_is_megatrons_learning_rate_one_update_ahead(style, shape, warmup):
    config = OptimizerConfig(lr=PEAK, min_lr=LEAST, lr_decay_style=style, lr_wsd_decay_style=shape)
    lengths = ScheduleLengths(END, END, warmup, wsd_decay=30)
    found = [learning_rate(config, iteration, lengths) for iteration in range(1, END + 20)]
    expected, _ = megatron_values(megatron_scheduler(config, lengths), [1] * (END + 19))
    assert_one_update_ahead(found, expected)
    assert (expected[0] == 0 < found[0]) == (warmup > 0), "their first update of a warm-up changes nothing"
    assert style == "constant" or min(found[END:]) == max(found[END:]) == LEAST


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_is_megatrons_weight_decay_one_update_ahead(style):
    config = OptimizerConfig(weight_decay_incr_style=style, start_weight_decay=0.02, end_weight_decay=0.3)
    ends = {"start_wd": 0.02, "end_wd": 0.3, "wd_incr_style": style}
    lengths = ScheduleLengths(END, END)
    found = [weight_decay(config, iteration, lengths) for iteration in range(1, END + 20)]
    _, expected = megatron_values(megatron_scheduler(config, lengths, **ends), [1] * (END + 19))
    assert_one_update_ahead(found, expected)
    assert weight_decay(OptimizerConfig(weight_decay=0.2), 7, lengths) == 0.2


@pytest.mark.parametrize(("style", "shape"), SHAPES)
@pytest.mark.parametrize("warmup", [{"lr_warmup_samples": 60}, {"lr_warmup_fraction": 0.1}])
def test_in_samples_it_is_megatrons_while_the_batch_grows(style, shape, warmup):
    """Megatron-LM steps its scheduler by the global batch, so with a ramp the steps differ in length."""
    values = {"lr": PEAK, "min_lr": LEAST, "lr_decay_style": style, "lr_wsd_decay_style": shape} | warmup
    values |= {"weight_decay_incr_style": "linear", "start_weight_decay": 0.02, "end_weight_decay": 0.3}
    values |= {"train_samples": 900, "lr_decay_samples": 800}
    if style == "WSD":
        values["lr_wsd_decay_samples"] = 200
    config = build(values | {"global_batch_size": 8, "rampup_batch_size": ("4", "2", "200")}, None)
    lengths, sizes = schedule_lengths(config), [4]
    while sum(sizes) < 900:
        sizes.append(batch_size_at(config, 1, sum(sizes)))
    assert set(sizes) == {4, 6, 8}
    positions = [sum(sizes[: count + 1]) for count in range(len(sizes))]
    ends = {"start_wd": 0.02, "end_wd": 0.3, "wd_incr_style": "linear"}
    rates, decays = megatron_values(megatron_scheduler(config.optimizer, lengths, **ends), sizes)
    assert_one_update_ahead([learning_rate(config.optimizer, at, lengths) for at in positions], rates)
    assert_one_update_ahead([weight_decay(config.optimizer, at, lengths) for at in positions], decays)
    by_number = [learning_rate(config.optimizer, n, lengths) for n in range(1, len(sizes) + 1)]
    assert by_number[:-1] != pytest.approx(rates[1:], rel=0.01)  # the control: positions are samples, not iterations


def test_iterations_and_samples_say_the_same_of_one_batch_size():
    common = {"lr": PEAK, "min_lr": LEAST, "global_batch_size": 8}
    first = build(common | {"train_iters": 100, "lr_warmup_fraction": 0.2}, None)
    second = build(common | {"train_samples": 800, "lr_warmup_samples": 160}, None)
    assert schedule_lengths(first).warmup == 20
    for n in range(1, 120):
        rates = [
            learning_rate(config.optimizer, n * size, schedule_lengths(config))
            for config, size in ((first, 1), (second, 8))
        ]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)
