"""Products in 8 bits in a run: it continues bit for bit, and what is not finite skips the update."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import fp8_cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool
from tests.distributed.test_activation_memory import formula
from tests.distributed.test_skipped_updates import NAN_LOSS, NAN_NORM, UPDATED
from tests.small_configs import BACKBONES, small_config

GIVEN = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-3, "train_iters": 4}


def test_a_run_continues_bit_for_bit(pool: Pool, tmp_path: Path) -> None:
    def run(folder: Path | None, steps: int, **values: object) -> list[float]:
        place = None if folder is None else str(folder)
        return pool.run(fp8_cases.train, 1, folder=place, steps=steps, values=GIVEN | fp8_cases.EIGHT_BITS | values)[-1]

    whole = run(None, 4)
    assert run(tmp_path, 2) == whole[:2] and run(tmp_path, 2) == whole[2:]
    in_bf16 = run(None, 4, fp8_format=None)
    assert in_bf16 != whole and in_bf16 == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize(
    ("what", "reason"), [pytest.param("loss", NAN_LOSS, marks=pytest.mark.full), ("gradient", NAN_NORM)]
)
def test_a_nan_skips_the_update(pool: Pool, what: str, reason: int) -> None:
    (found,) = pool.run(fp8_cases.train_disturbed, 1, what=what)
    assert found.codes == [UPDATED, reason, UPDATED]
    assert found.kept == [False, True, False] and found.is_finite


@pytest.mark.full
@pytest.mark.parametrize(
    ("ranks", "more", "exact"),
    [(1, RECOMPUTES["uniform 2"], True), (*LAYOUTS["PP2"], False), (*LAYOUTS["DP2"], False)],
    ids=["recomputed", "PP2", "DP2"],
)
def test_goes_with_the_rest(pool: Pool, ranks: int, more: dict, exact: bool, tmp_path: Path) -> None:
    """From one checkpoint; what is computed again is the same to the last bit."""
    place = str(tmp_path)
    pool.run(fp8_cases.train, 1, folder=place, steps=1, values=GIVEN | fp8_cases.EIGHT_BITS)
    given = GIVEN | fp8_cases.EIGHT_BITS | {"load": place}
    whole, found = (
        pool.run(fp8_cases.train, n, folder=None, steps=3, values=given | values)[-1]
        for n, values in ((1, {}), (ranks, more))
    )
    assert found == whole if exact else found == pytest.approx(whole, abs=5e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_formula_says_what_is_kept(pool: Pool, backbone: str) -> None:
    values = fp8_cases.EIGHT_BITS | {"seq_length": 64, "micro_batch_size": 2}
    config = small_config(backbone, **values)
    (measured,) = pool.run(fp8_cases.kept, 1, backbone=backbone, values=values)
    assert measured == pytest.approx(formula(config), rel=0.03)
    assert measured != pytest.approx(formula(small_config(backbone, **values | {"fp8_format": None})), rel=0.03)
