"""A NaN on one rank skips the update of all: not a bit of weights, moments or step changes, and the run goes on as one
that was told to skip this iteration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS
from tests.distributed.pool import Pool
from tests.distributed.skip_cases import Trained, train

# codes of skipping.Why
UPDATED, TOLD, NORM_SPIKE, LOSS_SPIKE, NAN_NORM, NAN_LOSS = range(6)
BF16, FP16 = {"bf16": True}, {"fp16": True, "loss_scale": 16.0}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True, "ddp_bucket_size": 20_000}
CASES: dict[str, tuple[str, str, dict[str, Any], str, int, int]] = {
    # layout, optimizer, precision and more, what happens on which rank, the reason
    "TP2 SP, plain, bf16": ("TP2 SP", "plain", BF16, "gradient", 1, NAN_NORM),
    "PP2, plain, fp16": ("PP2", "plain", FP16, "gradient", 0, NAN_NORM),
    "DP2, distributed, fp32": ("DP2", "distributed", {}, "element", 1, NAN_NORM),
    "PP2, distributed, bf16": ("PP2", "distributed", BF16, "loss", 0, NAN_LOSS),
    "DP2, plain, fp32": ("DP2", "plain", {}, "loss", 1, NAN_LOSS),
    "DP2, distributed, bf16, overlap": ("DP2", "distributed", BF16 | OVERLAP, "gradient", 0, NAN_NORM),
    "DP2, plain, bf16, one copy": ("DP2", "plain", BF16, "element", 1, NAN_NORM),
    "PP2 interleaved, distributed, fp32": ("PP2 interleaved", "distributed", {}, "gradient", 1, NAN_NORM),
    "TP2 SP, distributed, fp16": ("TP2 SP", "distributed", FP16, "element", 1, NAN_NORM),
    "TP2 SP x PP2, distributed, bf16": ("TP2 SP x PP2", "distributed", BF16, "loss", 2, NAN_LOSS),
    "TP2 SP x DP2, plain, fp32": ("TP2 SP x DP2", "plain", {}, "gradient", 3, NAN_NORM),
    "PP2 x DP2, distributed, fp32": ("PP2 x DP2", "distributed", {}, "element", 2, NAN_NORM),
}
ALWAYS = list(CASES)[:3]


def run(pool: Pool, case: str, **arguments: Any) -> list[Trained]:
    layout, optimizer, more, *_ = CASES[case]
    world_size, parallel = LAYOUTS[layout]
    values = parallel | OPTIMIZERS[optimizer] | more | arguments.pop("values", {})
    return pool.run(train, world_size, values=values, **arguments)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in ALWAYS else [pytest.mark.full]) for c in CASES])
def test_all_ranks_skip_and_go_on_as_if_told_to(pool: Pool, case: str) -> None:
    *_, what, rank, reason = CASES[case]
    found = run(pool, case, what=what, rank=rank)
    told = run(pool, case, values={"iterations_to_skip": ("2",)})
    for disturbed, reference in zip(found, told, strict=True):
        assert disturbed.codes == [UPDATED, reason, UPDATED] and disturbed.kept == [False, True, False]
        assert reference.codes == [UPDATED, TOLD, UPDATED] and reference.kept == [False, True, False]
        assert disturbed.state == reference.state and disturbed.losses[2] == reference.losses[2]
        assert disturbed.is_finite and disturbed.copies_differ == []


@pytest.mark.full
def test_a_skipped_update_is_missing_in_the_end(pool: Pool) -> None:
    """The control of the comparison above."""
    case = "DP2, plain, fp32"
    told = run(pool, case, values={"iterations_to_skip": ("2",)})
    assert told[0].state != run(pool, case)[0].state


@pytest.mark.parametrize(
    "case", ["TP2 SP, plain, bf16", pytest.param("PP2, distributed, bf16", marks=pytest.mark.full)]
)
def test_without_the_check_nan_reaches_the_weights(pool: Pool, case: str) -> None:
    *_, what, rank, _ = CASES[case]
    unchecked = {"check_for_nan_in_loss_and_grad": False}
    for found in run(pool, case, what=what, rank=rank, steps=2, values=unchecked):
        assert found.codes == [UPDATED] * 2 and not found.is_finite


def test_a_rank_that_does_not_hear_of_it_is_noticed(pool: Pool) -> None:
    first, second = run(pool, "DP2, plain, bf16, one copy", what="element", rank=1, deaf=True, steps=2)
    assert first.codes == [UPDATED, UPDATED] and second.codes == [UPDATED, NAN_NORM]
    assert first.copies_differ and second.copies_differ


SPIKES = {"window": (8, 4), "values": {"skip_spikes": True, "hidden_dropout": 0.0}}


@pytest.mark.full
def test_a_jump_is_skipped_by_all_ranks(pool: Pool) -> None:
    for found in run(pool, "PP2, distributed, bf16", what="jump", rank=0, at=7, steps=8, **SPIKES):
        assert found.codes[:6] == [UPDATED] * 6 and found.codes[6] == NORM_SPIKE and found.kept[6]
    # Without the option, and before there are enough values, it is an update as any other.
    short = {**SPIKES, "values": {"hidden_dropout": 0.0}}
    assert run(pool, "PP2, distributed, bf16", what="jump", rank=0, at=7, steps=7, **short)[0].codes[6] == UPDATED
    assert run(pool, "PP2, distributed, bf16", what="jump", rank=0, at=4, steps=4, **SPIKES)[0].codes[3] == UPDATED


def test_the_window_survives_a_stop(pool: Pool, tmp_path: Path) -> None:
    """Six values are in it at the stop; a window that began anew would have too few to find the jump."""
    case, where = "DP2, distributed, fp32", {"what": "jump", "rank": 1, "at": 7}
    whole = run(pool, case, steps=8, **where, **SPIKES)
    run(pool, case, steps=6, folder=str(tmp_path), **SPIKES)
    rest = run(pool, case, steps=2, folder=str(tmp_path), from_folder=True, **where, **SPIKES)
    assert whole[0].codes[6] == NORM_SPIKE
    for found, expected in zip(rest, whole, strict=True):
        assert found.codes == expected.codes[6:] and found.state == expected.state
