"""A checkpoint continues under any layout, with the losses that it would have had."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train, weights_and_moments

VALUES = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-3, "lr_warmup_iters": 2, "train_iters": 8}
CONTINUED = ("one", "TP2", "PP2", "DP2", "TP2 x PP2")


def losses(pool: Pool, layout: str, values: dict[str, Any] = VALUES, **arguments: Any) -> list[float]:
    """The losses under a layout, which all ranks that have them agree on."""
    world_size, parallel = LAYOUTS[layout]
    found = [x for x in pool.run(train, world_size, values=values | parallel, **arguments) if x is not None]
    assert all(other == found[0] for other in found)
    return found[0]


@pytest.fixture(scope="module")
def undisturbed(pool: Pool) -> list[float]:
    """Eight iterations under TP2 x PP2 without a stop."""
    return losses(pool, "TP2 x PP2", folder=None, steps=8)


@pytest.fixture(scope="module")
def halfway(pool: Pool, undisturbed: list[float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of its first four, to be copied."""
    folder = tmp_path_factory.mktemp("halfway") / "checkpoints"
    assert losses(pool, "TP2 x PP2", folder=str(folder), steps=4) == undisturbed[:4]
    return folder


def copied(halfway: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(halfway, tmp_path / "checkpoints"))


@pytest.mark.parametrize("layout", CONTINUED)
def test_continues_under_another_layout(
    pool: Pool, undisturbed: list[float], halfway: Path, tmp_path: Path, layout: str
) -> None:
    then = losses(pool, layout, folder=copied(halfway, tmp_path), steps=4)
    tolerance = 0 if layout == "TP2 x PP2" else 1e-5
    assert np.allclose(then, undisturbed[4:], rtol=tolerance, atol=0), (then, undisturbed[4:])


@pytest.mark.full  # test_resume_matrix.py has 16 bits in `make test`
def test_continues_in_bf16(pool: Pool, tmp_path: Path) -> None:
    bf16 = VALUES | {"bf16": True}
    whole = losses(pool, "TP2 x PP2", values=bf16, folder=None, steps=8)
    folder = str(tmp_path / "checkpoints")
    assert losses(pool, "TP2 x PP2", values=bf16, folder=folder, steps=4) == whole[:4]
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    assert losses(pool, "TP2 x PP2", values=bf16, folder=folder, steps=4) == whole[4:]
    # Another layout rounds its 16-bit sums in another order.
    other = losses(pool, "one", values=bf16, folder=str(kept), steps=4)
    assert np.allclose(other, whole[4:], rtol=2e-3, atol=0), (other, whole[4:])


@pytest.mark.parametrize("forget_generators", [False, True])
def test_dropout_continues_with_the_same_random_numbers(pool: Pool, tmp_path: Path, forget_generators: bool) -> None:
    dropout = VALUES | {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    whole = losses(pool, "TP2", values=dropout, folder=None, steps=6)
    folder = str(tmp_path / "checkpoints")
    losses(pool, "TP2", values=dropout, folder=folder, steps=3)
    then = losses(pool, "TP2", values=dropout, folder=folder, steps=3, forget_generators=forget_generators)
    assert (then == whole[3:]) == (not forget_generators)


def test_a_lost_optimizer_state_is_noticed(pool: Pool, undisturbed: list[float], halfway: Path, tmp_path: Path) -> None:
    then = losses(pool, "one", folder=copied(halfway, tmp_path), steps=4, forget_moments="")
    assert np.allclose(then[0], undisturbed[4], rtol=1e-5, atol=0)
    assert not np.allclose(then[1:], undisturbed[5:], rtol=1e-4, atol=0)


def test_holds_tensors_only_under_names_that_do_not_depend_on_the_layout(pool: Pool, tmp_path: Path) -> None:
    contents = {}
    for layout in ("one", "TP2 x PP2"):
        folder = str(tmp_path / layout)
        losses(pool, layout, folder=folder, steps=1)
        (contents[layout],) = pool.run(weights_and_moments, 1, folder=folder, values={})
    for content in contents.values():
        assert content["others"] == []  # ShardedObjects are pickles
    keys = {layout: {k for k in content["tensors"]} for layout, content in contents.items()}
    assert keys["one"] == keys["TP2 x PP2"]
    assert "context_head.gate" in keys["one"]
    assert "optimizer.state.exp_avg.context_head.predictor.layers.0.mlp.linear_fc1.weight" in keys["one"]
    assert not any("_extra_state" in key for key in keys["one"])
