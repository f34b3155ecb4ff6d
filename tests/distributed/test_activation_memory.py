"""Activation memory is what the formula says: storages that autograd keeps are counted, on every rank.

S = 64 and 2 samples of a model of 4 layers x 64, so that states are most of what is kept.
"""

from __future__ import annotations

import itertools
import random
from typing import Any, NamedTuple

import pytest

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.activation_segments import segments
from contextlm.analysis.execution import Execution
from contextlm.config.schema import Config
from tests.distributed import memory_cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import PRECISIONS, RECOMPUTES
from tests.distributed.pool import Pool
from tests.small_configs import BACKBONES, FUSIONS, VOCAB_SIZE, small_config

TOLERANCE = 0.1
ON_CPU = Execution(on_cuda=False)
WIDE_LAYOUTS = ("one", "TP2", "TP2 SP")


class Row(NamedTuple):
    """One model and how it is run, by the names of the layout matrix."""

    backbone: str = "gpt2"
    layout: str = "one"
    recompute: str = "nothing"
    precision: str = "fp32"
    hidden_dropout: float = 0.0
    predictor_layers: int = 2
    fusion: str = "gated"
    attention_dropout: float = 0.0

    def values(self) -> dict[str, Any]:
        """The whole configuration."""
        return (
            {"seq_length": 64, "micro_batch_size": 2, "context_predictor_layers": self.predictor_layers}
            | {"hidden_dropout": self.hidden_dropout, "attention_dropout": self.attention_dropout}
            | {"context_fusion": self.fusion}
            | LAYOUTS[self.layout][1]
            | RECOMPUTES[self.recompute]
            | PRECISIONS[self.precision]
        )

    def config(self) -> Config:
        """It, resolved."""
        return small_config(self.backbone, **self.values())


CASES = (
    *(Row(recompute=recompute) for recompute in RECOMPUTES),
    Row(layout="TP2", predictor_layers=0, fusion="gated_channel"),
    Row("pythia", "TP2", precision="bf16", fusion="norm_add"),
    Row("pythia", "TP2 SP", hidden_dropout=0.1, fusion="norm_add"),
    Row("pythia", "TP2 SP", "attention and MLP", "bf16", hidden_dropout=0.1),
    Row(layout="TP2 SP", predictor_layers=0, fusion="gated_channel"),
    Row("pythia", "TP2 SP", "uniform 2", fusion="add"),
    Row("pythia", "one", "block 1", "fp16", hidden_dropout=0.1, predictor_layers=0),
)
_chance = random.Random(0)
PRODUCT = [
    Row._make((*case, _chance.choice((0, 2)), _chance.choice(FUSIONS), 0.0))
    for case in itertools.product(BACKBONES, WIDE_LAYOUTS, RECOMPUTES, ("fp32", "bf16"), (0.0, 0.1))
]


class Measurements:
    """What rows keep, each measured when it is first asked for."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.known = pool, dict[Row, Any]()

    def get(self, row: Row) -> tuple[int, int]:
        """Bytes that a forward pass keeps, and the most at once until its backward pass ends."""
        if row not in self.known:
            world_size = LAYOUTS[row.layout][0]
            ranks = self.pool.run(
                memory_cases.forward_and_backward, world_size, backbone=row.backbone, values=row.values()
            )
            assert min(ranks)[0] > 0.99 * max(ranks)[0]  # a rank's first chunk may begin on the rank before
            self.known[row] = max(ranks)
        return self.known[row]


@pytest.fixture(scope="module")
def measurements(pool: Pool) -> Measurements:
    return Measurements(pool)


def formula(config: Config) -> tuple[int, int]:
    """The same two numbers. No operation keeps the tensors in passing: only the GPU test sees them."""
    parts = segments(Activations(config, VOCAB_SIZE, ON_CPU), range(config.model.num_layers), True, True)
    peak = peak_activations(config, VOCAB_SIZE, 0, 1, ON_CPU, passing=False).total
    return sum(part.kept for part in parts), peak


@pytest.mark.parametrize("row", CASES, ids=lambda row: "-".join(map(str, row)))
def test_the_formula_says_what_is_kept(measurements: Measurements, row: Row) -> None:
    assert measurements.get(row) == pytest.approx(formula(row.config()), rel=TOLERANCE)


@pytest.mark.full
@pytest.mark.parametrize("layout", WIDE_LAYOUTS)
@pytest.mark.parametrize("recompute", RECOMPUTES)
def test_the_formula_says_what_is_kept_by_everything(measurements: Measurements, layout: str, recompute: str) -> None:
    for row in PRODUCT:
        if (row.layout, row.recompute) == (layout, recompute):
            assert measurements.get(row) == pytest.approx(formula(row.config()), rel=TOLERANCE), row


def test_a_formula_for_something_else_is_noticed(measurements: Measurements) -> None:
    row = Row("pythia", "TP2 SP", hidden_dropout=0.1, fusion="norm_add")
    kept, _ = measurements.get(row)
    for other in ({"layout": "TP2"}, {"recompute": "uniform 1"}, {"precision": "bf16"}, {"hidden_dropout": 0.0}):
        assert kept != pytest.approx(formula(row._replace(**other).config())[0], rel=TOLERANCE), other


def test_sequence_parallelism_and_each_recomputation_keep_less(measurements: Measurements) -> None:
    kept = {recompute: measurements.get(Row(recompute=recompute))[0] for recompute in RECOMPUTES}
    for recompute in RECOMPUTES.keys() - {"nothing"}:
        assert kept[recompute] < kept["nothing"], recompute
    # The longer a group, the fewer inputs are kept; at the peak one group is whole again.
    assert kept["uniform 4"] < kept["uniform 2"] < kept["uniform 1"] < kept["block 1"]
    peaks = {recompute: measurements.get(Row(recompute=recompute))[1] for recompute in RECOMPUTES}
    assert peaks["uniform 1"] < peaks["uniform 2"] < peaks["uniform 4"] <= peaks["nothing"]
    shared = Row(layout="TP2", predictor_layers=0, fusion="gated_channel")
    assert measurements.get(shared._replace(layout="TP2 SP"))[0] < 0.9 * measurements.get(shared)[0]


def test_recomputed_attention_keeps_no_matrix_over_pairs_of_positions(measurements: Measurements) -> None:
    """With dropout torch's attention has no fused kernel on a CPU: it keeps the probabilities of all pairs."""
    row = Row(recompute="attention", attention_dropout=0.1)
    assert measurements.get(row)[0] == pytest.approx(formula(row.config())[0], rel=TOLERANCE)
    assert measurements.get(row._replace(recompute="nothing"))[0] > 1.3 * measurements.get(row)[0]


SCHEDULES = (("PP2 interleaved", 2), ("PP3 of 1 + 2 + 1 layers", 3), ("PP4", 5))
MORE_SCHEDULES = (
    *((layout, recompute, number) for layout, number in SCHEDULES for recompute in ("uniform 1", "attention and MLP")),
    ("PP3 of 1 + 2 + 1 layers", "nothing", 3),
    ("PP4", "nothing", 5),
    ("PP2", "nothing", 2),
    ("PP2", "uniform 2", 3),
    ("PP2 interleaved", "nothing", 6),
    ("TP2 SP x PP2 interleaved", "uniform 1", 4),
)


@pytest.mark.parametrize(
    ("layout", "recompute", "num_microbatches"),
    [("PP2 interleaved", "nothing", 2)] + [pytest.param(*case, marks=pytest.mark.full) for case in MORE_SCHEDULES],
)
def test_the_formula_says_the_peak_of_each_stage(
    pool: Pool, layout: str, recompute: str, num_microbatches: int
) -> None:
    world_size, parallel = LAYOUTS[layout]
    batch = {"micro_batch_size": 2, "global_batch_size": 2 * num_microbatches}
    # Where the head stands first on a stage, the schedule keeps the states that it has received, unseen here: 4%.
    values = {"seq_length": 64, "context_encoder_layers": 1} | batch | parallel | RECOMPUTES[recompute]
    measured = pool.run(memory_cases.schedule, world_size, backbone="gpt2", values=values)
    tensor_ranks, config = parallel["tensor_model_parallel_size"], small_config("gpt2", **values)
    stages = range(parallel["pipeline_model_parallel_size"])
    expected, one_by_one = (
        [peak_activations(config, VOCAB_SIZE, stage, number, ON_CPU, passing=False).total for stage in stages]
        for number in (num_microbatches, 1)
    )
    assert measured[::tensor_ranks] == pytest.approx(expected, rel=TOLERANCE)
    if recompute == "nothing":  # where a micro-batch costs much, the formula for another schedule is noticed
        assert measured[0] != pytest.approx(one_by_one[0], rel=TOLERANCE)
