"""A stopped run continues bit for bit in its layout, whatever it was in the middle of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train

DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
# 4, 4, 4, 6, 6, 8, 8 ... samples: after 4 iterations it is half way up.
RAMP = {"micro_batch_size": 1, "global_batch_size": 8, "rampup_batch_size": ("4", "2", "20")}
PLAIN = {"use_distributed_optimizer": False}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True, "ddp_bucket_size": 20_000}
# So high a scale overflows at first; so short a window raises it again: it changes before and after the stop.
FP16 = {"fp16": True, "initial_loss_scale": 2.0**20, "loss_scale_window": 2, "hysteresis": 1}
CASES = {
    "distributed": DROPOUT,
    "distributed, overlap and gather": DROPOUT | OVERLAP,
    "plain": DROPOUT | PLAIN,
    "plain, bf16": DROPOUT | PLAIN | {"bf16": True},
    "distributed, bf16, gather": DROPOUT | OVERLAP | {"bf16": True},
    "distributed, fp16": DROPOUT | FP16,
    "plain, fp16": DROPOUT | FP16 | PLAIN,
}
# The same two ranks as one copy of the model.
SPLIT = {
    "TP2 SP": DROPOUT | LAYOUTS["TP2 SP"][1],
    "TP2 SP, recomputed": DROPOUT | LAYOUTS["TP2 SP"][1] | RECOMPUTES["uniform 2"] | {"bf16": True},
    "TP2 SP, fp16": DROPOUT | FP16 | LAYOUTS["TP2 SP"][1],
    "PP2 interleaved": DROPOUT | OVERLAP | LAYOUTS["PP2 interleaved"][1] | {"rampup_batch_size": ()},
}
STOPS = (4, 7)
ALWAYS = {
    ("distributed, overlap and gather", 4),
    ("plain", 7),
    ("plain, fp16", 7),
    ("TP2 SP", 4),
}


@pytest.fixture
def run(pool: Pool, data: Path, tmp_path: Path):
    """Train on two ranks, DP2 unless a case says otherwise, on a dataset of which an epoch has 33 samples."""
    words = {"data_path": (str(data),), "tokenizer_type": "ByteTokenizer", "split": "3,90,7"}
    given = words | RAMP | {"lr": 1e-3, "lr_warmup_iters": 2, "train_iters": 8}

    def run(folder: str | None, steps: int, values: dict[str, Any], **arguments: Any) -> list[float]:
        place = None if folder is None else str(tmp_path / folder)
        return pool.run(train, 2, folder=place, steps=steps, values=given | values, **arguments)[-1]

    return run


@pytest.mark.parametrize(
    ("case", "stop"),
    [
        pytest.param(case, stop, marks=[] if (case, stop) in ALWAYS else [pytest.mark.full])
        for case in CASES | SPLIT
        for stop in STOPS
    ],
)
def test_continues_bit_for_bit(run, case: str, stop: int) -> None:
    values = (CASES | SPLIT)[case]
    whole = run(None, 8, values)
    assert run("run", stop, values) == whole[:stop]
    assert run("run", 8 - stop, values) == whole[stop:]


def test_the_cases_are_in_the_middle_of_what_they_claim(run) -> None:
    sizes = run(None, 8, CASES["plain"], told="num_samples")
    assert sizes == [4, 4, 4, 6, 6, 8, 8, 8]  # stop 4: in the ramp
    assert sum(sizes[:4]) < 33 < sum(sizes[:7]) < 66  # in the first epoch, in the second


@pytest.mark.parametrize("case", ["plain, fp16", pytest.param("TP2 SP, fp16", marks=pytest.mark.full)])
def test_the_loss_scale_changes_before_and_after_the_stop(run, case: str) -> None:
    scales = run(None, 8, (CASES | SPLIT)[case], told="loss_scale")
    assert len(set(scales[:4])) > 1 and len(set(scales[4:])) > 1, scales
