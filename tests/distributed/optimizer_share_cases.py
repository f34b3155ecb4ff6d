"""What the ranks do whose optimizer's state is compared with megatron-core's own form of it; run by the pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

BATCH = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-2}
KINDS = ("param", "exp_avg", "exp_avg_sq")
Shard = tuple[str, str, int, np.ndarray]
"""Kind, name in the checkpoint, first element and values of what one rank holds of a tensor."""


@contextlib.contextmanager
def form_of_megatron_core() -> Iterator[None]:
    """Inside, the distributed optimizer is saved and loaded in megatron-core's own form, gathered and whole."""
    from contextlm.checkpoints import optimizer_state
    from contextlm.checkpoints.optimizer_state import OptimizerState

    def gathered(optimizer: Any, weights: Any, prefix: str) -> dict[str, Any]:
        state = optimizer.sharded_param_state_fully_reshardable(weights, metadata={})
        return {kinds["exp_avg"].key.removeprefix(f"{prefix}exp_avg."): kinds for kinds in state.values()}

    original = OptimizerState.restore

    def restore(self: Any, loaded: dict[str, Any]) -> None:
        original(self, loaded)
        whole = {index: loaded["param_state"][name] for index, name in enumerate(self._tensors())}
        self.optimizer.load_parameter_state_from_fully_reshardable(whole)

    with mock.patch.object(optimizer_state, "share", gathered), mock.patch.object(OptimizerState, "restore", restore):
        yield


def train_in_form_of_megatron_core(**arguments: Any) -> list[float] | None:
    """`train`, which saves and resumes as megatron-core does."""
    from tests.distributed.resume_cases import train

    with form_of_megatron_core():
        return train(**arguments)


def save_with_small_buckets(folder: str, values: dict[str, Any], ours: bool) -> tuple[list[Shard], int]:
    """One step with buckets of 20,000 elements, saved; this rank's shards, and the elements of its stage."""
    from contextlm.checkpoints import saving
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    buckets = {"ddp_bucket_size": 20_000, "overlap_grad_reduce": True}
    with (
        contextlib.nullcontext() if ours else form_of_megatron_core(),
        small_run("gpt2", **BATCH, **buckets, **values, save=folder) as run,
    ):
        assert len(run.model[0].buffers[0].buckets) > 1
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        if batches is not None:
            batches.close()
        saving.save(run, lambda text: None)
        return _shards(run), sum(weight.numel() for weight in run.language_model[0].parameters())


def _shards(run: Any) -> list[Shard]:
    from contextlm.checkpoints import sharded_state

    optimizer, (model,) = run.optimizer.chained_optimizers[0], run.language_model
    keys = {name: sharded.key for name, sharded in sharded_state.weights_state([model], run.layout)["model0"].items()}
    found = []
    for name, parameter in model.named_parameters():
        if parameter not in optimizer.model_param_gbuf_map:
            continue  # another rank has it
        gbuf_index, dtype, bucket = optimizer.model_param_gbuf_map[parameter]
        start = optimizer.gbuf_ranges[gbuf_index][dtype][bucket]["param_map"][parameter]["param"].start
        held = optimizer._get_main_param_and_optimizer_states(parameter)
        found += [(kind, keys[name], start, held[kind].detach().flatten().numpy().copy()) for kind in KINDS]
    return found


def bytes_to_save(folder: str, values: dict[str, Any], ours: bool) -> tuple[int, int]:
    """Parameters of this rank, and the bytes that it needs besides its optimizer's own to save that."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values

    from contextlm.checkpoints import snapshot
    from contextlm.checkpoints.optimizer_state import PREFIX
    from contextlm.checkpoints.shards import Shards
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, **values) as run, contextlib.nullcontext() if ours else form_of_megatron_core():
        state = snapshot._state(run)
        described = [sharded.data for sharded in nested_values(state["optimizer"]["param_state"])]
        shards = Shards(state, Path(folder))
        shards.to_host()
        copied = [
            tensor
            for _, _, (_, tensors) in shards._writer.write_buckets
            for item, tensor in tensors
            if item.index.fqn.startswith(PREFIX)
        ]
        inner = run.optimizer.chained_optimizers[0].optimizer
        own = [p for group in inner.param_groups for p in group["params"]]
        own += [tensor for kinds in inner.state.values() for tensor in kinds.values()]
        return sum(p.numel() for part in run.model for p in part.parameters()), sum(
            size for place, size in _storages(described + copied).items() if place not in _storages(own)
        )


def _storages(tensors: list[Any]) -> dict[int, int]:
    """The memory behind tensors: its address and bytes."""
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
