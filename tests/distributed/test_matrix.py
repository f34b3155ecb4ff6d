"""The layout matrix: whatever options meet, the numbers are those of one process (matrix.py has the rows).

In fp32 to rounding. In 16 bits a layout rounds elsewhere, one draw of chance against another: it may be twice as
far from fp32 as one process is in that precision. With dropout the layouts draw different numbers, so a row is held
against its own layout without recomputation, overlap and the plain optimizer: these must change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layout_cases import cross_sends, keep_gradients, keep_shares, save_random_weights, train
from tests.distributed.matrix import DROPOUTS, LAYOUTS, RECOMPUTES, Row, all_pairs, covering_rows, pairs_of
from tests.distributed.pool import Pool

_COVERING = list(covering_rows())
# With dropout a row is held against its own layout only, so what meets there meets again without.
ROWS = [*_COVERING, *(row._replace(dropout="0") for row in _COVERING if row.dropout != "0")]
ALWAYS = (2, 4, 7, 11, 15, 16, 32, 131, 132)  # rows of `make test`: each kind of layout, optimizer, precision
BOUNDS = {"loss": 1e-5, "norm": 1e-4, "head": 1e-4}
BASE = ROWS[0]._replace(
    optimizer="distributed", recompute="nothing", precision="fp32", dropout="0", micro_batches=2, backbone="gpt2",
    encoder_layers=2, predictor_layers=2, fusion="gated", stop_gradient=False, seq_length=68,
)  # fmt: skip


class Runs:
    """Runs from shared checkpoints, each made once."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder, self.known = pool, folder, {}

    def checkpoint(self, row: Row) -> str:
        """All weights random and non-zero, saved by one process in fp32."""
        model = row.model()
        name = "-".join([row.backbone, *map(str, model.values())])
        if name not in self.known:
            batch = {"micro_batch_size": 2, "global_batch_size": 4}
            folder = str(self.folder / name)
            self.pool.run(save_random_weights, 1, folder=folder, backbone=row.backbone, values=model | batch)
            self.known[name] = folder
        return self.known[name]

    def get(self, row: Row) -> list[dict[str, Any]]:
        """What the ranks of a row computed."""
        if row not in self.known:
            self.known[row] = self.train(row)
        return self.known[row]

    def train(self, row: Row, **sabotage: Any) -> list[dict[str, Any]]:
        """The same, afresh."""
        return self.pool.run(
            train,
            row.world_size,
            folder=self.checkpoint(row),
            backbone=row.backbone,
            values=row.values(),
            **sabotage,
        )


@pytest.fixture(scope="module")
def runs(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(pool, tmp_path_factory.mktemp("matrix"))


def reference(row: Row) -> Row:
    """The row that a row must compute the same as."""
    simple = row._replace(optimizer="distributed", recompute="nothing")
    return simple if row.dropout != "0" else simple._replace(layout="one", micro_batches=2)


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, float]:
    """The greatest relative differences of losses, gradient norms and the head's gradients (L2 over all of one)."""
    losses, expected_losses = (
        np.array(next(rank["losses"] for rank in ranks if rank["losses"] is not None)) for ranks in (found, expected)
    )
    gradients, expected_gradients = (
        {name: g for rank in ranks for name, g in rank["head"].items()} for ranks in (found, expected)
    )
    assert gradients.keys() == expected_gradients.keys()
    assert all(np.linalg.norm(g) > 0 for g in expected_gradients.values())
    distances = [np.linalg.norm(gradients[name] - g) / np.linalg.norm(g) for name, g in expected_gradients.items()]
    norms, expected_norms = (np.array([rank["norms"] for rank in ranks], dtype=float) for ranks in (found, expected))
    return {
        "loss": float(np.max(np.abs(losses / expected_losses - 1))),
        "norm": float(np.max(np.abs(norms / expected_norms[:1] - 1))),
        "head": max(distances, default=0.0),
    }


def bounds(runs: Runs, row: Row) -> tuple[Row, dict[str, float]]:
    """The row to compare with, and how far a row may be from it."""
    same = reference(row)
    if row.precision == "fp32" or row.dropout != "0":
        return same, BOUNDS
    exact = same._replace(precision="fp32")
    return exact, {kind: max(2 * d, BOUNDS[kind]) for kind, d in differences(runs.get(exact), runs.get(same)).items()}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if number in ALWAYS else [pytest.mark.full], id=f"{number}: {row.layout}")
        for number, row in enumerate(ROWS)
    ],
)
def test_a_row_computes_what_its_reference_does(runs: Runs, row: Row) -> None:
    other, limits = bounds(runs, row)
    ranks = runs.get(row)
    found = differences(runs.get(other), ranks)
    assert all(found[kind] <= limit for kind, limit in limits.items()), (found, limits, row)
    assert [sentence for rank in ranks for sentence in rank["replicas"]] == [], row


@pytest.mark.parametrize(
    "recompute",
    [
        pytest.param(name, marks=[] if name == "uniform 2" else [pytest.mark.full])
        for name in RECOMPUTES
        if name != "nothing"
    ],
)
def test_recomputation_draws_the_same_numbers_under_sequence_parallelism(runs: Runs, recompute: str) -> None:
    """Three generators take part: the block's own, the predictor's, which all ranks share, and its attention's."""
    row = BASE._replace(layout="TP2 SP", dropout="0.1", recompute=recompute)
    found = differences(runs.get(reference(row)), runs.get(row))
    assert found["loss"] == found["norm"] == found["head"] == 0, found


@pytest.mark.parametrize(
    ("layout", "sabotage"),
    [
        ("TP2 SP", keep_shares),
        ("TP2 SP", keep_gradients),
        pytest.param("TP4 SP", keep_shares, marks=pytest.mark.full),
        pytest.param("TP4 SP", keep_gradients, marks=pytest.mark.full),
        ("PP2 interleaved", cross_sends),
    ],
)
def test_a_fault_is_noticed(runs: Runs, layout: str, sabotage: Any) -> None:
    row = BASE._replace(layout=layout, micro_batches=4 if "interleaved" in layout else 2)
    other, limits = bounds(runs, row)
    found = differences(runs.get(other), runs.train(row, sabotage=sabotage))
    assert not all(found[kind] <= 10 * limit for kind, limit in limits.items()), found


def test_every_pair_of_options_meets() -> None:
    assert set().union(*map(pairs_of, ROWS)) >= all_pairs()
    without = {pair for pair in all_pairs() if ("dropout", "0.1") not in pair}
    assert set().union(*(pairs_of(row) for row in ROWS if row.dropout == "0")) >= without
    always = [ROWS[number] for number in ALWAYS]
    assert {row.precision for row in always} >= {"fp32", "bf16, sums in bf16", "fp16"}
    assert {row.dropout for row in always} == DROPOUTS.keys()
    options = {option for row in always for option in LAYOUTS[row.layout][1]}
    assert options == {option for _, values in LAYOUTS.values() for option in values}
