"""The layout matrix: whatever options meet, the numbers are those of one process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.distributed.covering import all_meetings, meetings_of
from tests.distributed.layout_cases import train
from tests.distributed.matrix import FACTORS, PRECISIONS, RECOMPUTES, Row
from tests.distributed.matrix_rows import ALWAYS, BASE, EXACT, PAIRS, ROWS, VALUES, exact
from tests.distributed.matrix_runs import (
    BOUNDS,
    FAULTS,
    Runs,
    check_fault,
    check_row,
    comparison,
    differences,
    reference,
    rounding,
)
from tests.distributed.pool import Pool

# Pairs that need more than eight processes, or more samples than a batch has.
IMPOSSIBLE = {
    ("TP4", "PP3"),
    ("TP4 SP", "PP3"),
    ("TP4", "PP4 of 1 + 2 + 2 + 1 layers"),
    ("TP4 SP", "PP4 of 1 + 2 + 2 + 1 layers"),
    ("TP4", 4),
    ("TP4 SP", 4),
    ("PP3", 4),
    ("PP4 of 1 + 2 + 2 + 1 layers", 4),
    ("PP2 interleaved", 1),  # micro-batches: the stages take them in rounds of two
    ("PP2 interleaved of 2 + 4 layers", 1),
    (4, 4),  # copies and micro-batches
}


@pytest.fixture(scope="module")
def runs(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(pool, tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row in ALWAYS else [pytest.mark.full], id=f"{number}: {row.layout}")
        for number, row in enumerate(ROWS)
    ],
)
def test_a_row_computes_what_its_reference_does(runs: Runs, row: Row) -> None:
    check_row(runs, row)


@pytest.mark.full
@pytest.mark.parametrize("precision", [precision for precision in PRECISIONS if precision != "fp32"])
def test_on_the_whole_other_layouts_round_no_worse(runs: Runs, precision: str) -> None:
    rows = [row for row in PAIRS if row.precision == precision and row.dropout == "0"]
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


@pytest.mark.full
def test_three_interleaved_stages_compute_what_one_process_does(runs: Runs) -> None:
    """Not in the matrix: its batch has no rounds of three."""
    values = BASE.values() | {"micro_batch_size": 1, "global_batch_size": 6}
    stages = {"pipeline_model_parallel_size": 3, "num_layers_per_virtual_pipeline_stage": 1}
    arguments = {"folder": runs.checkpoint(BASE), "backbone": BASE.backbone}
    one, three = (
        runs.pool.run(train, count, values=values | more, **arguments) for count, more in ((1, {}), (3, stages))
    )
    found = differences(one, three)
    assert all(found[kind] <= limit for kind, limit in BOUNDS.items()), found


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.full] if "four" in fault else []) for fault in FAULTS]
)
def test_a_fault_is_noticed(runs: Runs, fault: str) -> None:
    check_fault(runs, fault)


def test_every_pair_of_options_meets() -> None:
    pairs, met = set(all_meetings(2)), set().union(*(meetings_of(row, 2) for row in PAIRS))
    assert met == pairs
    inexact = {(factor, x) for factor, value in EXACT.items() for x in FACTORS[factor] if x != value}
    met_exactly = set().union(*(meetings_of(row, 2) for row in ROWS if row == exact(row)))
    assert met_exactly >= {pair for pair in pairs if not pair & inexact}


def test_the_pairs_that_are_left_out_are_these() -> None:
    met = set(all_meetings(2))
    left_out = {
        (x, y)
        for one, other in itertools.combinations(FACTORS, 2)
        for x, y in itertools.product(FACTORS[one], FACTORS[other])
        if frozenset({(one, x), (other, y)}) not in met
    }
    assert left_out == IMPOSSIBLE


def test_every_value_is_in_make_test_and_on_machines_of_one_and_two_gpus() -> None:
    always = set().union(*(meetings_of(row, 1) for row in ALWAYS if row == exact(row)))
    inexact = {frozenset({(factor, x)}) for factor, value in EXACT.items() for x in FACTORS[factor] if x != value}
    assert always >= set(all_meetings(1)) - inexact
    assert {row.precision for row in ALWAYS} >= {"fp32", "bf16, sums in bf16", "fp16, sums in fp16"}
    assert any(row.dropout != "0" for row in ALWAYS) and all(row.world_size <= 4 for row in ALWAYS)
    for count, rows in VALUES.items():
        assert set().union(*(meetings_of(row, 1) for row in rows)) == set(all_meetings(1, count))
