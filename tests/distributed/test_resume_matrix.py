"""Any layout and optimizer continues any other's checkpoint: the losses are those of the run that was stopped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layout_cases import save_random_weights
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train, weights_and_moments
from tests.small_configs import VOCAB_SIZE

VALUES = {"micro_batch_size": 1, "global_batch_size": 4, "lr": 1e-3, "lr_warmup_iters": 2, "train_iters": 6}
VALUES |= {"seq_length": 68}
BOUND = 1e-5  # relative, of a loss: another layout rounds its sums in another order
# (layout, optimizer) that saves -> those that continue
PAIRS: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("DP4", "distributed"): [("one", "distributed"), ("one", "plain"), ("TP4 SP", "distributed")],
    ("one", "plain"): [("DP4", "distributed"), ("PP2 interleaved", "plain"), ("TP2 SP x PP2", "distributed")],
    ("PP2 interleaved x DP2", "distributed, overlap and gather"): [
        ("TP2 x PP2", "plain"),
        ("PP2 of 3 + 1 layers", "distributed"),
        ("DP2", "distributed, overlap"),
    ],
    ("TP2 SP x DP2", "plain, overlap"): [
        ("DP2", "distributed, overlap and gather"),
        ("PP4", "distributed"),
        ("TP2", "plain"),
    ],
    ("PP3 of 1 + 2 + 1 layers", "distributed"): [
        ("TP2 SP x PP2 interleaved", "distributed, overlap and gather"),
        ("one", "plain"),
        ("PP2 of 1 + 3 layers", "plain"),
    ],
}
ALWAYS = (("one", "plain"), ("PP2 interleaved x DP2", "distributed, overlap and gather"))  # sources in `make test`
ALL = [
    pytest.param(source, target, marks=[] if source in ALWAYS else [pytest.mark.full])
    for source, targets in PAIRS.items()
    for target in targets
]


def values(place: tuple[str, str], more: dict[str, Any]) -> dict[str, Any]:
    layout, optimizer = place
    return VALUES | LAYOUTS[layout][1] | OPTIMIZERS[optimizer] | more


class Saved:
    """Checkpoints of three iterations from random weights, and the losses of the three that would have followed."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder, self.known = pool, folder, dict[Any, Any]()

    @functools.cached_property
    def begin(self) -> str:
        """Random weights: in a fresh model the gate hides the head, and what a resume loses of it."""
        begin = str(self.folder / "begin")
        self.pool.run(save_random_weights, 1, folder=begin, backbone="gpt2", values=VALUES)
        return begin

    def train(
        self,
        place: tuple[str, str],
        steps: int,
        more: dict[str, Any],
        resave: str | None = None,
        forget_moments: str | None = None,
        ahead: int = 0,
    ) -> list[float]:
        """Train; the losses are the same on all ranks that have them."""
        ranks = self.pool.run(
            train,
            LAYOUTS[place[0]][0],
            folder=None,
            steps=steps,
            values=values(place, more),
            resave=resave,
            forget_moments=forget_moments,
            ahead=ahead,
        )
        losses = [rank for rank in ranks if rank is not None]
        assert all(other == losses[0] for other in losses)
        return losses[0]

    def get(self, place: tuple[str, str], more: dict[str, Any]) -> tuple[str, list[float]]:
        """The checkpoint's folder, and the losses after it."""
        key = (place, *sorted(more))
        if key not in self.known:
            folder = str(self.folder / str(len(self.known)))
            self.train(place, 3, more | {"load": self.begin, "finetune": True, "save": folder})
            self.known[key] = (folder, self.train(place, 3, more | {"load": folder}))
        return self.known[key]

    def tensors(self, folder: str) -> dict[str, np.ndarray]:
        """What a checkpoint holds, by key, but for the random numbers: another layout has others."""
        (stored,) = self.pool.run(weights_and_moments, 1, folder=folder, values={})
        return {key: tensor for key, tensor in stored["tensors"].items() if not key.startswith("rng.")}


@pytest.fixture(scope="module")
def saved(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(pool, tmp_path_factory.mktemp("pairs"))


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Tensors that are not the same bits; a layout pads the vocabulary to its own length."""
    assert one.keys() == other.keys()
    return [key for key in one if not same(one[key], other[key])]


def same(one: np.ndarray, other: np.ndarray) -> bool:
    rows = min(len(one), len(other))
    return np.array_equal(one[:rows], other[:rows]) and (len(one) == len(other) or rows > VOCAB_SIZE)


@pytest.mark.parametrize(("source", "target"), ALL, ids=lambda place: ", ".join(place))
def test_continues_with_the_losses_of_the_run_that_stopped(
    saved: Saved, tmp_path: Path, source: tuple[str, str], target: tuple[str, str]
) -> None:
    folder, expected = saved.get(source, {})
    found = saved.train(target, 3, {"load": folder}, resave=str(tmp_path))
    assert np.allclose(found, expected, rtol=BOUND, atol=0), (found, expected)
    assert differing(saved.tensors(folder), saved.tensors(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("DP2", "distributed, overlap and gather"), ("PP2", "plain")),
        *(
            pytest.param(source, target, marks=pytest.mark.full)
            for source, target in (
                (("TP2 SP x DP2", "plain, overlap"), ("PP4", "distributed")),
                (("PP2 interleaved x DP2", "distributed"), ("TP2", "plain")),
                (("one", "plain"), ("DP4", "distributed, overlap")),
            )
        ),
    ],
    ids=lambda place: ", ".join(place),
)
def test_what_was_written_while_training_went_on_continues_alike(
    saved: Saved, tmp_path: Path, source: tuple[str, str], target: tuple[str, str]
) -> None:
    begin = {"load": saved.begin, "finetune": True, "save": str(tmp_path), "async_save": True}
    losses = saved.train(source, 3, begin, ahead=3)
    found = saved.train(target, 3, {"load": str(tmp_path)})
    assert np.allclose(found, losses[3:], rtol=BOUND, atol=0), (found, losses)


def test_lost_moments_of_the_head_alone_are_noticed(saved: Saved) -> None:
    folder, expected = saved.get(("one", "plain"), {})
    found = saved.train(("PP2 interleaved", "plain"), 3, {"load": folder}, forget_moments="context_head.")
    assert np.isclose(found[0], expected[0], rtol=BOUND, atol=0)
    assert not np.isclose(found[1:], expected[1:], rtol=BOUND, atol=0).any(), (found, expected)


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=pytest.mark.full), "fp16"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(("DP2", "distributed, overlap and gather"), ("PP2 interleaved", "plain"), marks=pytest.mark.full),
        (("PP2", "plain"), ("TP2 SP", "distributed")),
    ],
    ids=lambda place: ", ".join(place),
)
def test_sixteen_bits_keep_every_bit(
    saved: Saved, tmp_path: Path, source: tuple[str, str], target: tuple[str, str], precision: str
) -> None:
    """Losses round differently in another layout; what is stored must not: saved again, it is the same."""
    more = {precision: True, "initial_loss_scale": 16.0}
    folder, _ = saved.get(source, more)
    saved.train(target, 0, more | {"load": folder}, resave=str(tmp_path))
    before = saved.tensors(folder)
    assert all(before[f"optimizer.state.{kind}.context_head.gate"].any() for kind in ("param", "exp_avg", "exp_avg_sq"))
    assert differing(before, saved.tensors(str(tmp_path))) == []


def test_fp32_weights_are_stored_once(saved: Saved) -> None:
    folder, _ = saved.get(("PP2 interleaved x DP2", "distributed, overlap and gather"), {})
    assert not any(key.startswith("optimizer.state.param.") for key in saved.tensors(folder))
