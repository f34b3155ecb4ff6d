"""What the ranks of a resume test do; run by the pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.stored_tensors import stored


def train(
    folder: str | None,
    steps: int,
    values: dict[str, Any],
    forget_moments: str | None = None,
    forget_generators: bool = False,
    told: str = "loss",
    resave: str | None = None,
    ahead: int = 0,
) -> list[float] | None:
    """Train `steps` iterations from where the configuration says, and save.

    Args:
        folder: where to save and to resume from, if anywhere.
        steps: how many iterations.
        values: of the configuration; they may name other places.
        forget_moments: sabotage: AdamW's moments are lost, of all weights whose stored names begin so.
        forget_generators: sabotage: the random numbers begin anew.
        told: which value of the iterations to return.
        resave: where to save at once what was loaded.
        ahead: how many iterations to train on while the checkpoint is written.

    Returns:
        the losses, or what `told` names, on ranks that have them.
    """
    from contextlm.checkpoints import loading, saving
    from contextlm.parallel.agreement import Agreement
    from contextlm.parallel.seeds import seed_dropout
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    places = {} if folder is None else {"save": folder, "load": folder}
    with small_run("gpt2", **(places | values)) as run:
        with contextlib.nullcontext() if forget_moments is None else _moments_lost(forget_moments):
            loading.load(run, lambda text: None)
        if resave is not None:
            saving.save(_saving_in(run, resave), lambda text: None)
        if forget_generators:
            seed_dropout(1, run.layout)
        batches = run.micro_batches(run.datasets.train, run.progress.consumed_samples, run.num_microbatches_at)
        values_told = []

        def step() -> None:
            result = train_step(run, batches)
            values_told.append(float(getattr(result, told)))
            run.progress.iteration += 1
            run.progress.consumed_samples += result.num_samples

        for _ in range(steps):
            step()
        with saving.Saving(run, Agreement(1), lambda text: None) as in_background:
            in_background.save(last=not ahead)
            for _ in range(ahead):
                step()
                in_background.advance()
            in_background._wait()
        if batches is not None:
            batches.close()
        return values_told if run.layout.is_last_stage else None


def _saving_in(run: Any, folder: str) -> Any:
    """The run, with another folder to save in."""
    from dataclasses import replace

    given = replace(run.config.checkpoint, save=folder)
    return replace(run, config=replace(run.config, checkpoint=given))


@contextlib.contextmanager
def _moments_lost(prefix: str) -> Iterator[None]:
    """Inside, what an optimizer is given of a checkpoint has no moments of the weights whose names begin so."""
    from unittest import mock

    from megatron.core.dist_checkpointing.dict_utils import nested_values

    from contextlm.checkpoints.optimizer_state import PREFIX, OptimizerState

    original = OptimizerState.restore

    def restore(self: Any, loaded: dict[str, Any]) -> None:
        for name, kinds in self._tensors().items():
            for kind in ("exp_avg", "exp_avg_sq"):
                (key,) = {sharded.key for sharded in nested_values({0: kinds[kind]})}
                if key.startswith(f"{PREFIX}{kind}.{prefix}"):
                    for tensor in nested_values({0: loaded["param_state"][name][kind]}):
                        tensor.zero_()
        original(self, loaded)

    with mock.patch.object(OptimizerState, "restore", restore):
        yield


def train_as_on_cuda(folder: str, values: dict[str, Any]) -> None:
    """Save what a GPU would have saved: generators of other names and widths."""
    import json
    from pathlib import Path
    from unittest import mock

    import torch

    from contextlm.checkpoints import checkpoint_folder, manifest, rng_state

    states = {f"cuda.{name}": torch.zeros(16, dtype=torch.uint8) for name in ("host", "device", "tracker.x")}
    with mock.patch.object(rng_state, "collect", lambda: states):
        train(folder, 2, values)
    found = checkpoint_folder.find(Path(folder))
    assert found is not None
    facts = json.loads((found / "run.json").read_text())
    (found / "run.json").write_text(json.dumps(facts | {"device": "cuda"}))
    manifest.write(found, manifest.digests(found, manifest.read(found) or ()))


def weights_and_moments(folder: str, values: dict[str, Any]) -> dict[str, Any]:
    """Every stored tensor of the newest checkpoint, by key, read in one process."""
    from pathlib import Path

    from contextlm.checkpoints import checkpoint_folder

    found = checkpoint_folder.find(Path(folder))
    assert found is not None
    tensors, others = stored(found)
    return {"tensors": {key: tensor.float().numpy() for key, tensor in tensors.items()}, "others": others}
