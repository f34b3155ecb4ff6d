"""What the ranks of a silent-fault test do; run by the pool. Each takes whether the remedy is in place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

BATCH = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-2}


def save_after_steps(
    folder: str, values: dict[str, Any], gathered: bool, then: int = 0
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Two iterations with gathered weights left to the next forward pass, saved, and some more.

    Returns:
        the weights in memory when they were saved, and the losses of the iterations after it.
    """
    from contextlm.checkpoints import saving, snapshot
    from contextlm.training import setup
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    as_they_are = lambda run: contextlib.nullcontext()  # noqa: E731
    with (
        mock.patch.object(snapshot, "gathered_weights", setup.gathered_weights if gathered else as_they_are),
        small_run("gpt2", **BATCH, **values, save=folder) as run,
    ):
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        for _ in range(2):
            run.progress.consumed_samples += train_step(run, batches).num_samples
            run.progress.iteration += 1
        saving.save(run, lambda text: None)
        with setup.gathered_weights(run):
            weights = {name: p.detach().float().numpy().copy() for name, p in run.language_model[0].named_parameters()}
        losses = [train_step(run, batches).loss.item() for _ in range(then)]
        batches.close()
        return weights, losses


def resume_stale(folder: str, steps: int, values: dict[str, Any]) -> list[float] | None:
    """Sabotage: the optimizer's masters are the checkpoint's, the weights those of before, until the first update."""
    import torch

    from contextlm.checkpoints import loading
    from tests.distributed.resume_cases import train

    original = loading._resume

    def resume(run: Any, *arguments: Any) -> None:
        weights = [weight for part in run.model for weight in part.parameters()]
        before = [weight.detach().clone() for weight in weights]
        original(run, *arguments)
        torch._foreach_copy_([weight.data for weight in weights], before)

    with mock.patch.object(loading, "_resume", resume):
        return train(None, steps, values | {"load": folder})


@contextlib.contextmanager
def blind_to_decay() -> Iterator[None]:
    """Inside, what decays and what does not are alike to all that match parameter groups."""
    from megatron.core.optimizer import distrib_optimizer, optimizer

    from contextlm.checkpoints import optimizer_state

    keys = tuple(key for key in optimizer.param_group_identifier_keys if key != "wd_mult")
    with contextlib.ExitStack() as patches:
        for module in (distrib_optimizer, optimizer, optimizer_state):
            patches.enter_context(mock.patch.object(module, "param_group_identifier_keys", keys))
        yield


def alike_groups() -> str:
    """Two parameter groups that would be confused; what building their run raises."""
    from tests.distributed.runs import small_run

    try:
        with blind_to_decay(), small_run("gpt2", **BATCH):
            return ""
    except ValueError as error:
        return str(error)


def train_confused(folder: str | None, steps: int, values: dict[str, Any]) -> list[float] | None:
    """Sabotage: train although two parameter groups are alike."""
    from contextlm.training import optimizer
    from tests.distributed.resume_cases import train

    with blind_to_decay(), mock.patch.object(optimizer, "_check", lambda *arguments: None):
        return train(folder, steps, values)


def two_types() -> str:
    """A bf16 model whose gate stays fp32; what building its run raises."""
    from megatron.core.transformer.module import Float16Module

    from contextlm.training import setup
    from tests.distributed.runs import small_run

    def all_but_the_gate(config: Any, module: Any) -> Any:
        wrapped = Float16Module(config, module)
        for name, weight in module.named_parameters():
            if name.endswith("gate"):
                weight.data = weight.data.float()
        return wrapped

    with mock.patch.object(setup, "Float16Module", all_but_the_gate):
        try:
            with small_run("gpt2", **BATCH, bf16=True):
                return ""
        except ValueError as error:
            return str(error)


def save_before_the_first_step(folder: str, values: dict[str, Any], initialised: bool) -> list[str]:
    """Save a run that has done nothing; the keys of its optimizer's state."""
    from contextlm.checkpoints import saving
    from tests.distributed.resume_cases import weights_and_moments
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, **values, save=folder) as run:
        if not initialised:
            run.optimizer.chained_optimizers[0].init_state_fn = lambda *arguments: None
        saving.save(run, lambda text: None)
    return [key for key in weights_and_moments(folder, {})["tensors"] if key.startswith("optimizer.state.exp_avg.")]


def load_what_one_rank_lacks(folder: str, values: dict[str, Any]) -> str:
    """The last rank asks for a weight that the checkpoint does not have; what each rank raises."""
    from dataclasses import replace

    from contextlm.checkpoints import checkpoint_folder, loading
    from contextlm.errors import UserError
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, **values) as run:
        original = loading.weights_state

        def with_one_more(parts: Any, layout: Any) -> Any:
            state = original(parts, layout)
            if layout.is_last_rank:
                name, weight = next((n, w) for n, w in state["model0"].items() if n.endswith("final_layernorm.weight"))
                state["model0"][name + "er"] = replace(weight, key="decoder.nowhere")
            return state

        found = checkpoint_folder.find(Path(folder))
        assert found is not None
        with mock.patch.object(loading, "weights_state", with_one_more):
            try:
                loading.load_weights(run, found)
            except UserError as error:
                return str(error)
        return ""


def save_where_one_disk_is_full(folder: str, values: dict[str, Any]) -> str:
    """The last rank cannot write; what each rank raises, which must be an ordinary exception."""
    from contextlm.checkpoints import loading, saving, shards
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, **values, save=folder, load=folder) as run:
        loading.load(run, lambda text: None)
        run.progress.iteration += 1
        faulty = mock.patch.object(shards, "_write", side_effect=OSError(28, "No space left on device"))
        with (
            mock.patch.object(saving, "PAUSES_BEFORE_RETRIES", ()),
            faulty if run.layout.is_last_rank else contextlib.nullcontext(),
        ):
            try:
                saving.save(run, lambda text: None)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        return ""


def load_damaged(folder: str, values: dict[str, Any]) -> str:
    """Load a checkpoint; what each rank raises, which must be an ordinary exception."""
    from contextlm.checkpoints import loading
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, **values, load=folder) as run:
        try:
            loading.load(run, lambda text: None)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""
