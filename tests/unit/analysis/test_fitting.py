"""Layouts that fit do fit, are valid, and none that was looked at is better."""

from __future__ import annotations

import pytest

from contextlm.analysis import fitting
from contextlm.analysis.fitting import fits, layout_flags, usable
from contextlm.analysis.memory import fullest, rank_memory
from contextlm.analysis.recompute_choices import CHOICES, compare_choices, recompute_flags, with_choice
from contextlm.analysis.step_time import Machine, step_time
from contextlm.config import Config, parse

MACHINE = Machine(peak_tflops=989, mfu=0.4)
GIB = 2**30
CASES = (
    ("contextlm-gpt2-1.5b", 8, 24, 512),
    ("contextlm-gpt2-1.5b", 64, 80, 512),
    ("contextlm-pythia-1.4b", 8, 12, 256),
    ("contextlm-gpt2-124m", 6, 4, 96),
)


def configuration(model: str, *flags: str) -> Config:
    return parse(["--dry-run", "--model", model, "--bf16", *flags], {}).config


@pytest.mark.parametrize(("model", "gpus", "memory", "batch"), CASES)
def test_what_is_proposed_fits_is_valid_and_is_what_its_flags_say(
    model: str, gpus: int, memory: int, batch: int
) -> None:
    given = ("--global-batch-size", str(batch))
    config = configuration(model, *given)
    found = fits(config, config.model.vocab_size, gpus, MACHINE, memory * GIB)
    assert found
    sizes = [
        (f.config.parallel.tensor_model_parallel_size, f.config.parallel.pipeline_model_parallel_size) for f in found
    ]
    assert len(set(sizes)) == len(sizes) <= 5
    times = [fit.time.total for fit in found]
    assert all(after > 0.99 * before for before, after in zip(times, times[1:], strict=False))
    for fit in found:
        assert fit.memory == fullest(fit.config, config.model.vocab_size, gpus)
        assert fit.memory.total <= usable(memory * GIB)
        assert fit.time == step_time(fit.config, config.model.vocab_size, gpus, MACHINE)
        # The reader of flags accepts them for so many processes, and means the same.
        words = [word for flag in layout_flags(fit.config) for word in flag.split()]
        assert configuration(model, *given, *words, "--world-size", str(gpus)) == fit.config


def test_none_that_fits_is_faster() -> None:
    """Against all valid layouts of 4 GPUs, each with all micro-batches and recomputations."""
    config = configuration("contextlm-gpt2-124m", "--global-batch-size", "4")
    limit, best = 2.2 * GIB, None
    vocab_size = config.model.vocab_size
    (first, *_) = fits(config, vocab_size, 4, MACHINE, limit)
    tried = 0
    for layout in fitting._layouts(config, 4, 8):
        for size in (1, 2, 4):
            for name in CHOICES:
                candidate = with_choice(fitting._with_samples(layout, size), name)
                if fitting.validate(candidate, 4, dry_run=True):
                    continue
                tried += 1
                if fullest(candidate, vocab_size, 4).total <= usable(limit):
                    best = min(best or 1e9, step_time(candidate, vocab_size, 4, MACHINE).total)
    assert tried > 100 and first.time.total == pytest.approx(best, rel=0.006)


def test_more_memory_is_never_slower_and_too_little_fits_nothing() -> None:
    config = configuration("contextlm-gpt2-1.5b", "--global-batch-size", "64")
    vocab_size = config.model.vocab_size
    best = [fits(config, vocab_size, 8, MACHINE, memory * GIB, most=1) for memory in (2, 10, 20, 80)]
    assert best[0] == []
    times = [found[0].time.total for found in best[1:]]
    assert times[0] >= 0.99 * times[1] >= 0.98 * times[2]


def test_25_heads_and_stages_that_do_not_divide() -> None:
    """gpt2-1.5b has 25 heads: of tensor parallelism 5 is possible, without sharing 1024 positions; 48 layers."""
    config = configuration("contextlm-gpt2-1.5b", "--global-batch-size", "100")
    layouts = [layout.parallel for layout in fitting._layouts(config, 10, 8)]
    assert {p.tensor_model_parallel_size for p in layouts} == {1, 5}
    assert not any(p.sequence_parallel for p in layouts)
    five = [p for p in layouts if (p.tensor_model_parallel_size, p.pipeline_model_parallel_size) == (1, 5)]
    # Five stages are four equal ones and a smaller one.
    assert [p.decoder_last_pipeline_num_layers for p in five] == [4, 8]


def test_the_smaller_last_stage_is_proposed_for_the_output_layer() -> None:
    config = configuration("contextlm-gpt2-1.5b", "--global-batch-size", "512")
    found = fits(config, config.model.vocab_size, 8, MACHINE, 24 * GIB)
    last = [fit.config.parallel.decoder_last_pipeline_num_layers for fit in found]
    assert 23 in last or 9 in last


def test_choices_of_recomputation_trade_memory_for_work() -> None:
    config = configuration("contextlm-gpt2-124m", "--micro-batch-size", "8", "--recompute-granularity", "selective")
    choices = compare_choices(config, 50257, 1)
    assert [choice.name for choice in choices] == list(CHOICES)
    nothing, attention, both, half, every = choices
    assert nothing.more_work == 0 and recompute_flags(nothing.config) == []
    assert 0 < attention.more_work < half.more_work < every.more_work < 1 / 3
    assert nothing.memory.total > half.memory.total > every.memory.total and attention.memory > both.memory
    for choice in choices:
        words = [word for flag in recompute_flags(choice.config) for word in flag.split()]
        asked = configuration("contextlm-gpt2-124m", "--micro-batch-size", "8", *words)
        assert asked == choice.config and choice.memory == rank_memory(asked, 50257, 0, 1)
