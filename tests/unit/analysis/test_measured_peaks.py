"""Peaks of GPUs' allocators, as measured, beside what the plan says of them: to 5%.

Rows stay when the code moves on: the formula must still know how it was when they were measured. Those to come are
tests/gpu/test_memory_peak.py's.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from contextlm.analysis import memory
from contextlm.analysis.execution import Execution
from contextlm.config import parse

WHOLE, UNBUFFERED = Execution(compiled="model"), Execution(compiled="model", buffered=False)
OTHER_LOSS = Execution(on_cuda=False)  # megatron-core's, in fp32

PLAIN = "--model gpt2-124m --micro-batch-size 32"
WIDE = "--model gpt2-1.5b --num-layers 12 --micro-batch-size 16"


class Measured(NamedTuple):
    """A peak in GiB: of an iteration in bf16 on one GPU, model and optimizer included."""

    date: str
    card: str
    options: str
    how: Execution
    gib: float


PEAKS = (
    Measured("2026-11-26", "H100", PLAIN, WHOLE, 14.55),  # 14.5 to 14.6
    Measured("2026-11-26", "H100", PLAIN, OTHER_LOSS, 20.5),
    Measured("2026-11-26", "H100", WIDE, WHOLE, 19.0),  # its loss was compiled, too
    # The benchmark's plain PyTorch, whose gradients stay where autograd leaves them, and whose loss is compiled.
    Measured("2026-11-26", "H100", PLAIN, UNBUFFERED, 14.1),
    Measured("2026-11-26", "H100", WIDE, UNBUFFERED, 17.4),
    # benchmarks/gpu.py: our own, plain and with the head.
    Measured("2026-11-26", "H200", PLAIN, UNBUFFERED, 14.07),
    Measured("2026-11-26", "H200", PLAIN.replace("gpt2", "contextlm-gpt2"), UNBUFFERED, 14.66),
    Measured("2026-11-26", "H200", "--model gpt2-1.5b --micro-batch-size 16", UNBUFFERED, 59.97),
    Measured("2026-11-26", "H200", "--model contextlm-gpt2-1.5b --micro-batch-size 16", UNBUFFERED, 61.06),
    Measured("2026-11-27", "H200", "--model gpt2-1.5b --micro-batch-size 24", UNBUFFERED, 79.84),
    Measured("2026-11-27", "H200", "--model pythia-410m --micro-batch-size 16", UNBUFFERED, 34.32),
    Measured("2026-11-27", "H200", "--model contextlm-pythia-410m --micro-batch-size 16", UNBUFFERED, 35.27),
    Measured("2026-11-27", "H200", "--model contextlm-gpt2-1.5b --micro-batch-size 24", UNBUFFERED, 81.06),
    Measured("2026-11-27", "H200", "--model gpt2-1.5b --micro-batch-size 24 --global-batch-size 192", WHOLE, 85.66),
    Measured("2026-11-27", "H200", "--model gpt2-1.5b --micro-batch-size 40 --global-batch-size 320", WHOLE, 125.14),
    Measured("2026-11-27", "H200", "--model pythia-160m --micro-batch-size 16", UNBUFFERED, 15.03),
    Measured("2026-11-27", "H200", "--model contextlm-pythia-160m --micro-batch-size 16", UNBUFFERED, 15.75),
    Measured("2026-11-27", "H200", "--model pythia-1.4b --micro-batch-size 8", UNBUFFERED, 45.94),
    Measured("2026-11-27", "H200", "--model contextlm-pythia-1.4b --micro-batch-size 8", UNBUFFERED, 47.98),
)


def planned(options: str, how: Execution, monkeypatch: pytest.MonkeyPatch) -> float:
    config = parse(["--dry-run", "--bf16", *options.split()], {}).config
    monkeypatch.setattr(memory, "execution", lambda *_, **__: how)
    return memory.rank_memory(config, 50257, 0, 1).total / 2**30


@pytest.mark.parametrize("peak", PEAKS, ids=lambda peak: f"{peak.options} {peak.gib}")
def test_the_plan_says_what_was_measured(monkeypatch: pytest.MonkeyPatch, peak: Measured) -> None:
    assert planned(peak.options, peak.how, monkeypatch) == pytest.approx(peak.gib, rel=0.05)


def test_what_was_measured_is_not_another_way_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(PLAIN, OTHER_LOSS, monkeypatch) > 1.05 * 14.55
    assert planned(WIDE, UNBUFFERED, monkeypatch) < 0.95 * 19.0


def test_the_head_adds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """16.0 GiB beside 15.3 on the same day and card, both with a compiled loss."""
    with_head = planned(PLAIN.replace("gpt2", "contextlm-gpt2"), WHOLE, monkeypatch)
    assert with_head - planned(PLAIN, WHOLE, monkeypatch) == pytest.approx(16.0 - 15.3, abs=0.1)
