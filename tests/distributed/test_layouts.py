"""Wherever the head stands and whatever it is, the plain layouts compute what one process does.

It stands first in the model (E = 0), in the middle of a stage (1), first on a stage (3) and before the last layer (5);
S = 64 and 66 (no multiple of w = 4); vocabulary 515. The layout matrix has the other options.
"""

from __future__ import annotations

import itertools

import pytest

from tests.distributed.matrix import FACTORS
from tests.distributed.matrix_rows import BASE
from tests.distributed.matrix_runs import Runs, check_row
from tests.distributed.pool import Pool
from tests.small_configs import BACKBONES, FUSIONS

LAYOUTS = {
    "TP2": {"tensor": "TP2"},
    "PP2": {"pipeline": "PP2"},
    "TP2 x PP2": {"tensor": "TP2", "pipeline": "PP2"},
    "DP2": {"copies": 2},
}
ENCODER_LAYERS, LENGTHS = FACTORS["encoder_layers"], (64, 66)
# In `make test` every pair of values of two factors occurs (E x fusion needs all 16, the others ride along).
PAIRWISE = [
    (list(LAYOUTS)[(e + f) % 4], encoder_layers, LENGTHS[(e + f // 2) % 2], list(BACKBONES)[(e // 2 + f) % 2], fusion)
    for e, encoder_layers in enumerate(ENCODER_LAYERS)
    for f, fusion in enumerate(FUSIONS)
]
CASES = [
    pytest.param(*case, marks=[] if case in PAIRWISE else [pytest.mark.full], id="-".join(map(str, case)))
    for case in itertools.product(LAYOUTS, ENCODER_LAYERS, LENGTHS, BACKBONES, FUSIONS)
]


@pytest.fixture(scope="module")
def runs(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(pool, tmp_path_factory.mktemp("layouts"))


@pytest.mark.parametrize(("layout", "encoder_layers", "length", "backbone", "fusion"), CASES)
def test_layout_computes_what_one_process_does(
    runs: Runs, layout: str, encoder_layers: int, length: int, backbone: str, fusion: str
) -> None:
    model = {"encoder_layers": encoder_layers, "seq_length": length, "backbone": backbone, "fusion": fusion}
    check_row(runs, BASE._replace(**LAYOUTS[layout], **model))


def test_pairwise_subset_covers_every_pair() -> None:
    everything = [tuple(LAYOUTS), ENCODER_LAYERS, LENGTHS, tuple(BACKBONES), FUSIONS]
    for one, other in itertools.combinations(range(5), 2):
        pairs = {(case[one], case[other]) for case in PAIRWISE}
        assert pairs == set(itertools.product(everything[one], everything[other])), (one, other)
