"""Every layout computes the same: from one shared checkpoint, 5 optimizer steps, fp32, dropout 0.

The head stands first in the model (E = 0), in the middle of a stage (1), first on a stage (2) and before the
last layer (3); S = 64 and 66 (not a multiple of w = 4); vocabulary 515.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layout_cases import save_random_weights, train, unmask_padding
from tests.distributed.pool import Pool
from tests.small_configs import BACKBONES, FUSIONS

LAYOUTS = {
    "TP2": (2, {"tensor_model_parallel_size": 2}),
    "PP2": (2, {"pipeline_model_parallel_size": 2}),
    "TP2xPP2": (4, {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}),
    "DP2": (2, {}),
}
ENCODER_LAYERS, LENGTHS = (0, 1, 2, 3), (64, 66)
# In `make test` every pair of values of two factors occurs (E x fusion needs all 16, the others ride along).
PAIRWISE = [
    (list(LAYOUTS)[(e + f) % 4], e, LENGTHS[(e + f // 2) % 2], list(BACKBONES)[(e // 2 + f) % 2], fusion)
    for e in ENCODER_LAYERS
    for f, fusion in enumerate(FUSIONS)
]
CASES = [
    pytest.param(*case, marks=[] if case in PAIRWISE else [pytest.mark.full], id="-".join(map(str, case)))
    for case in itertools.product(LAYOUTS, ENCODER_LAYERS, LENGTHS, BACKBONES, FUSIONS)
]
BATCH = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-3}


class References:
    """One-process runs, each made when the first layout asks for it."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder, self.known = pool, folder, {}

    def get(self, encoder_layers: int, length: int, backbone: str, fusion: str) -> tuple[str, dict, dict]:
        """The shared checkpoint, the configuration's values, and what one process computed from it."""
        case = (encoder_layers, length, backbone, fusion)
        values = {"context_encoder_layers": encoder_layers, "seq_length": length, "context_fusion": fusion} | BATCH
        if case not in self.known:
            checkpoint = str(self.folder / "-".join(map(str, case)))
            self.pool.run(save_random_weights, 1, folder=checkpoint, backbone=backbone, values=values)
            (result,) = self.pool.run(train, 1, folder=checkpoint, backbone=backbone, values=values)
            self.known[case] = (checkpoint, result)
        return self.known[case][0], values, self.known[case][1]


@pytest.fixture(scope="module")
def references(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(pool, tmp_path_factory.mktemp("layouts"))


def differences(reference: dict[str, Any], ranks: list[dict[str, Any]]) -> dict[str, float]:
    """The greatest relative differences of losses, gradient norms and the head's gradients."""
    losses = [rank["losses"] for rank in ranks if rank["losses"] is not None]
    head: dict[str, np.ndarray] = {}
    worst = 0.0
    for rank in ranks:
        head |= rank["head"]
        for name, gradient in rank["head"].items():
            expected = reference["head"][name]
            assert np.linalg.norm(expected) > 0 and np.isfinite(gradient).all(), name
            worst = max(worst, np.linalg.norm(gradient - expected) / np.linalg.norm(expected))
    assert head.keys() == reference["head"].keys() and len(head) >= 24
    return {
        "loss": max(np.max(np.abs(np.divide(x, reference["losses"]) - 1)) for x in losses),
        "norm": max(np.max(np.abs(np.divide(rank["norms"], reference["norms"]) - 1)) for rank in ranks),
        "head": worst,
    }


@pytest.mark.parametrize(("layout", "encoder_layers", "length", "backbone", "fusion"), CASES)
def test_layout_computes_what_one_process_does(
    references: References, layout: str, encoder_layers: int, length: int, backbone: str, fusion: str
) -> None:
    checkpoint, values, reference = references.get(encoder_layers, length, backbone, fusion)
    world_size, parallel = LAYOUTS[layout]
    ranks = references.pool.run(train, world_size, folder=checkpoint, backbone=backbone, values=values | parallel)
    found = differences(reference, ranks)
    assert found["loss"] < 1e-5 and found["norm"] < 1e-4 and found["head"] < 1e-4, found


def test_unmasked_padding_is_noticed(references: References) -> None:
    checkpoint, values, reference = references.get(2, 66, "gpt2", "gated")
    world_size, parallel = LAYOUTS["TP2"]
    ranks = references.pool.run(
        train, world_size, folder=checkpoint, backbone="gpt2", values=values | parallel, sabotage=unmask_padding
    )
    assert differences(reference, ranks)["loss"] > 1e-5


def test_pairwise_subset_covers_every_pair() -> None:
    everything = [tuple(LAYOUTS), ENCODER_LAYERS, LENGTHS, tuple(BACKBONES), FUSIONS]
    for one, other in itertools.combinations(range(5), 2):
        pairs = {(case[one], case[other]) for case in PAIRWISE}
        assert pairs == set(itertools.product(everything[one], everything[other])), (one, other)
