"""The distributed optimizer's state is saved right with more than one bucket (contextlm/megatron/bucket_padding.py)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import weights_and_moments

KINDS = ("param", "exp_avg", "exp_avg_sq")
Shard = tuple[str, str, int, np.ndarray]
"""Kind, name in the checkpoint, first element and values of what one rank holds of a tensor."""


def save_with_small_buckets(folder: str, values: dict[str, Any], mended: bool) -> tuple[list[Shard], int]:
    """One step with buckets of 20,000 elements, saved; this rank's shards, and the elements of its stage."""
    import contextlib
    from unittest import mock

    from contextlm.checkpoints import saving
    from contextlm.megatron import bucket_padding
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    batch = {"micro_batch_size": 2, "global_batch_size": 4, "ddp_bucket_size": 20_000, "overlap_grad_reduce": True}
    offsets = bucket_padding.unpadded_offsets if mended else lambda optimizer: contextlib.nullcontext()
    with (
        mock.patch.object(bucket_padding, "unpadded_offsets", offsets),
        small_run("gpt2", **batch, **values, save=folder) as run,
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


@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize(
    ("layout", "precision"),
    [
        ("DP2", "bf16"),
        pytest.param("DP2", "fp32", marks=pytest.mark.full),
        pytest.param("PP2 x DP2", "bf16", marks=pytest.mark.full),  # with the tied embedding on both stages
    ],
)
def test_saved_state_is_what_is_in_memory(
    pool: Pool, tmp_path: Path, layout: str, precision: str, mended: bool
) -> None:
    world_size, parallel = LAYOUTS[layout]
    values = parallel | {"bf16": precision == "bf16"}
    ranks = pool.run(save_with_small_buckets, world_size, folder=str(tmp_path), values=values, mended=mended)
    (stored,) = pool.run(weights_and_moments, 1, folder=str(tmp_path), values={})
    compared, wrong = Counter[str](), set()
    for kind, key, start, shard in (entry for shards, _ in ranks for entry in shards):
        # fp32 weights are their own masters, and stored once.
        place = key if precision == "fp32" and kind == "param" else f"optimizer.state.{kind}.{key}"
        saved = stored["tensors"][place].ravel()[start : start + len(shard)]
        assert len(saved) == len(shard), place
        compared[kind] += len(shard)
        if not np.array_equal(saved, shard):
            wrong.add(kind)
    elements = sum(count for _, count in ranks) // 2  # two ranks share the state of a stage
    assert compared == dict.fromkeys(KINDS, elements)
    # Without the mend this is the fault: a positive control for the comparison.
    through_buckets = {"exp_avg", "exp_avg_sq"} | ({"param"} if precision == "bf16" else set())
    assert wrong == (set() if mended else through_buckets)
