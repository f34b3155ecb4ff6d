"""The layout matrix: whatever options meet, the numbers are those of one process (matrix.py has the rows).

In fp32 to rounding. In 16 bits a layout rounds elsewhere, one draw of chance against another: a row may be twice as far
from one process in fp32 as one process in that precision is, the farthest of three that divide the batch otherwise; on
the whole the rows must be no farther than that. With dropout the layouts draw different numbers, so a row is held
against its own layout without recomputation, overlap and the plain optimizer: these must change nothing. Each row with
dropout, and each in 16 bits, is there again in fp32 without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layout_cases import cross_sends, keep_gradients, keep_shares, save_random_weights, train
from tests.distributed.matrix import FACTORS, PRECISIONS, RECOMPUTES, Row, all_meetings, covering_rows, meetings_of
from tests.distributed.pool import Pool

EXACT = {"precision": "fp32", "dropout": "0"}
PAIRS = covering_rows(2)
ALWAYS = covering_rows(1, max_processes=4)  # in `make test`: every value once
ROWS = list(dict.fromkeys([*ALWAYS, *PAIRS, *(row._replace(**EXACT) for row in PAIRS)]))
BOUNDS = {"loss": 1e-5, "norm": 1e-4, "head": 1e-4}
BASE = Row(
    tensor="TP1", pipeline="PP1", copies=1, optimizer="distributed", recompute="nothing", precision="fp32", dropout="0",
    micro_batches=2, backbone="gpt2", encoder_layers=3, predictor_layers=2, fusion="gated", stop_gradient=False,
    seq_length=68,
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
    """The row that a row must compute the same as; never itself, but for one process as plain as can be."""
    simple = row._replace(optimizer="distributed", recompute="nothing")
    if row.dropout == "0":
        return simple._replace(tensor="TP1", pipeline="PP1", copies=1, micro_batches=2)
    return simple if simple != row else row._replace(optimizer="plain")


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, float]:
    """The greatest relative differences of losses, gradient norms and the head's gradients (L2 over all of one).

    A gradient that cancels to less than a thousandth of the head's, as the gate's may, is compared with that.
    """
    losses, expected_losses = (
        np.array(next(rank["losses"] for rank in ranks if rank["losses"] is not None)) for ranks in (found, expected)
    )
    gradients, expected_gradients = (
        {name: g for rank in ranks for name, g in rank["head"].items()} for ranks in (found, expected)
    )
    assert gradients.keys() == expected_gradients.keys()
    sizes = {name: float(np.linalg.norm(g)) for name, g in expected_gradients.items()}
    assert all(size > 0 for size in sizes.values())
    least = 1e-3 * np.linalg.norm(list(sizes.values()))
    distances = [
        float(np.linalg.norm(gradients[name] - g)) / max(sizes[name], least) for name, g in expected_gradients.items()
    ]
    norms, expected_norms = (np.array([rank["norms"] for rank in ranks], dtype=float) for ranks in (found, expected))
    return {
        "loss": float(np.max(np.abs(losses / expected_losses - 1))),
        "norm": float(np.max(np.abs(norms / expected_norms[:1] - 1))),
        "head": max(distances, default=0.0),
    }


def comparison(row: Row) -> Row:
    """The row that a row is compared with: its reference, in fp32 where that tells something."""
    return reference(row)._replace(precision="fp32") if row.dropout == "0" else reference(row)


def rounding(runs: Runs, row: Row) -> dict[str, float]:
    """How far one process is from fp32 in a row's precision: the farthest of three divisions of the batch."""
    one = reference(row._replace(dropout="0"))
    exact = runs.get(one._replace(precision="fp32"))
    draws = [differences(exact, runs.get(one._replace(micro_batches=count))) for count in (1, 2, 4)]
    return {kind: max(limit, *(draw[kind] for draw in draws)) for kind, limit in BOUNDS.items()}


def bounds(runs: Runs, row: Row) -> dict[str, float]:
    """How far a row may be from the one that it is compared with."""
    if row.precision == "fp32":
        return BOUNDS
    return {kind: 2 * distance for kind, distance in rounding(runs, row).items()}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row in ALWAYS else [pytest.mark.full], id=f"{number}: {row.layout}")
        for number, row in enumerate(ROWS)
    ],
)
def test_a_row_computes_what_its_reference_does(runs: Runs, row: Row) -> None:
    limits, ranks = bounds(runs, row), runs.get(row)
    found = differences(runs.get(comparison(row)), ranks)
    assert all(found[kind] <= limit for kind, limit in limits.items()), (found, limits, row)
    assert [sentence for rank in ranks for sentence in rank["replicas"]] == [], row


@pytest.mark.full
@pytest.mark.parametrize("precision", [precision for precision in PRECISIONS if precision != "fp32"])
def test_on_the_whole_other_layouts_round_no_worse(runs: Runs, precision: str) -> None:
    rows = [row for row in ROWS if row.precision == precision and row.dropout == "0"]
    distances = [(rounding(runs, row), differences(runs.get(comparison(row)), runs.get(row))) for row in rows]
    for kind in BOUNDS:
        assert np.mean([found[kind] / one[kind] for one, found in distances]) < 1.1


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
    row = BASE._replace(tensor="TP2 SP", dropout="0.1", recompute=recompute)
    found = differences(runs.get(reference(row)), runs.get(row))
    assert found["loss"] == found["norm"] == found["head"] == 0, found


FAULTS = {
    "keeps its share": (BASE._replace(tensor="TP2 SP"), keep_shares),
    "keeps its gradients": (BASE._replace(tensor="TP2 SP"), keep_gradients),
    "keeps its share of four": (BASE._replace(tensor="TP4 SP"), keep_shares),
    "keeps its gradients of four": (BASE._replace(tensor="TP4 SP"), keep_gradients),
    "sends cross": (BASE._replace(pipeline="PP2 interleaved", micro_batches=4), cross_sends),
}


def is_noticed(runs: Runs, fault: str) -> bool:
    """Whether a row with a fault is further off than any bound allows."""
    row, sabotage = FAULTS[fault]
    found = differences(runs.get(comparison(row)), runs.train(row, sabotage=sabotage))
    return not all(found[kind] <= 10 * limit for kind, limit in bounds(runs, row).items())


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.full] if "four" in fault else []) for fault in FAULTS]
)
def test_a_fault_is_noticed(runs: Runs, fault: str) -> None:
    assert is_noticed(runs, fault)


def test_every_pair_of_options_meets() -> None:
    pairs = set(all_meetings(2))
    assert set().union(*(meetings_of(row, 2) for row in PAIRS)) == pairs
    inexact = {(factor, x) for factor, exact in EXACT.items() for x in FACTORS[factor] if x != exact}
    in_fp32 = [row for row in ROWS if row._asdict().items() >= EXACT.items()]
    assert set().union(*(meetings_of(row, 2) for row in in_fp32)) >= {pair for pair in pairs if not pair & inexact}
    assert set().union(*(meetings_of(row, 1) for row in ALWAYS)) == set(all_meetings(1))
