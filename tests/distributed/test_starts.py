"""The ways to begin: fresh, with another run's weights, with a plain backbone under a new head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextlm.config import load as load_config
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train, train_as_on_cuda

VALUES = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-3, "train_iters": 8}
PLAIN = {"context_chunk_size": 0}


@pytest.fixture
def losses(pool: Pool, tmp_path: Path):
    """Train in one process; `save` names a folder of this test's."""

    def run(save: str | None, steps: int, **values: Any) -> list[float]:
        folder = None if save is None else str(tmp_path / save)
        named = ("load", "init_backbone_from")
        values = {key: str(tmp_path / value) if key in named and value else value for key, value in values.items()}
        (found,) = pool.run(train, 1, folder=folder, steps=steps, values=VALUES | values)
        return found

    vars(run)["folder"] = tmp_path
    return run


def test_more_iterations_change_nothing_of_the_past(losses) -> None:
    whole = losses(None, 8, train_iters=8, lr_decay_iters=100)
    assert losses("run", 4, train_iters=4, lr_decay_iters=100) == whole[:4]
    assert losses("run", 4, train_iters=8, lr_decay_iters=100) == whole[4:]


def test_finetune_takes_the_weights_only(losses) -> None:
    first = losses("base", 4)
    tuned = losses("tuned", 4, load="base", finetune=True)
    assert tuned[0] != first[0]
    # Iteration 0, fresh data and optimizer: a second finetuning is the same, and so is its first sample.
    assert losses(None, 4, load="base", finetune=True) == tuned
    # From the finetuned run's own folder it goes on.
    assert losses("tuned", 1)[0] not in tuned


def test_a_begun_finetuning_goes_on_under_the_same_command(losses) -> None:
    losses("base", 4)
    whole = losses(None, 4, load="base", finetune=True)
    assert losses("tuned", 2, load="base", finetune=True) == whole[:2]
    assert losses("tuned", 2, load="base", finetune=True) == whole[2:]


def test_a_batch_size_that_was_not_given_does_not_change_with_the_processes(pool: Pool, losses) -> None:
    folder = str(losses.folder / "run")
    first = {key: value for key, value in VALUES.items() if key != "global_batch_size"}
    losses("run", 2, global_batch_size=None)
    assert load_config(losses.folder / "run" / "iter_0000002" / "config.yaml").training.global_batch_size == 2
    with pytest.raises(AssertionError, match="4 follows from 2 process.* run had 2; give --global-batch-size 2 to go"):
        pool.run(train, 2, folder=folder, steps=1, values=first)
    for given in (2, 4):
        pool.run(train, 2, folder=folder, steps=1, values=first | {"micro_batch_size": 1, "global_batch_size": given})


def test_another_runs_checkpoints_are_not_overwritten(losses) -> None:
    losses("base", 2)
    losses("other", 4)
    for load in (None, "base"):
        with pytest.raises(AssertionError, match="would overwrite"):
            losses("other", 1, load=load)
    (losses.folder / "other" / "latest_checkpointed_iteration.txt").unlink()
    with pytest.raises(AssertionError, match="would overwrite"):
        losses("other", 1, load="base")
    losses("other", 1)
    assert (losses.folder / "other" / "iter_0000005").is_dir()  # it went on all the same


def test_a_checkpoint_of_another_kind_of_device_is_resumed(pool: Pool, losses) -> None:
    folder = str(losses.folder / "base")
    pool.run(train_as_on_cuda, 1, folder=folder, values=VALUES)
    assert len(losses("base", 1)) == 1


def test_a_plain_backbone_goes_under_a_new_head(losses) -> None:
    losses("plain", 3, **PLAIN)
    grown = losses(None, 3, init_backbone_from="plain", lr_warmup_iters=2)
    plain = losses(None, 3, load="plain", finetune=True, lr_warmup_iters=2, **PLAIN)
    # The gate is 0 at the start: the first loss is the plain model's own; then the head learns too.
    assert grown[0] == plain[0] and grown[1] != plain[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load": "base", "finetune": True, "context_chunk_size": 2}, "--context-chunk-size 2: checkpoint"),
        ({"load": "base", "finetune": True, "context_fusion": "add"}, "--context-fusion add: checkpoint"),
        ({"load": "base", "finetune": True, "context_encoder_layers": 0}, "--context-encoder-layers 0: checkpoint"),
        ({"load": "base", "finetune": True, **PLAIN}, "--context-chunk-size 0: checkpoint"),
        ({"init_backbone_from": "base"}, "already has a context head"),
    ],
)
def test_another_model_is_refused(losses, values: dict[str, Any], message: str) -> None:
    losses("base", 1)
    with pytest.raises(AssertionError, match=message):
        losses(None, 1, **values)
