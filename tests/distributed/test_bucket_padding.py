"""The distributed optimizer's state is saved right with more than one bucket (contextlm/megatron/bucket_padding.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.pool import Pool
from tests.distributed.resume_cases import weights_and_moments


def save_with_small_buckets(folder: str, mended: bool) -> dict[str, Any]:
    """One step under DP2 with buckets of 20,000 elements, saved; returns this rank's view of the moments."""
    import contextlib
    from unittest import mock

    from contextlm.megatron import bucket_padding
    from contextlm.training import checkpoint
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    values = {"ddp_bucket_size": 20_000, "overlap_grad_reduce": True}
    offsets = bucket_padding.unpadded_offsets if mended else lambda optimizer: contextlib.nullcontext()
    with (
        mock.patch.object(bucket_padding, "unpadded_offsets", offsets),
        small_run("gpt2", micro_batch_size=2, global_batch_size=4, save=folder, **values) as run,
    ):
        assert len(run.model[0].buffers[0].buckets) > 2
        train_step(run, run.micro_batches(run.datasets.train, 0, run.num_microbatches))
        checkpoint.save(run, lambda text: None)
        return _moments(run)


def _moments(run: Any) -> dict[str, tuple[int, np.ndarray]]:
    """First element and values of this rank's shard of each parameter's second moment."""
    optimizer = run.optimizer.chained_optimizers[0]
    found = {}
    for name, parameter in run.language_model[0].named_parameters():
        if parameter not in optimizer.model_param_gbuf_map:
            continue  # another rank has it
        gbuf_index, dtype, bucket = optimizer.model_param_gbuf_map[parameter]
        ranges = optimizer.gbuf_ranges[gbuf_index][dtype][bucket]["param_map"][parameter]
        moments = optimizer._get_main_param_and_optimizer_states(parameter)["exp_avg_sq"]
        found[name] = (ranges["param"].start, moments.numpy())
    return found


@pytest.mark.parametrize("mended", [True, False])
def test_saved_moments_are_those_in_memory(pool: Pool, tmp_path: Path, mended: bool) -> None:
    ranks = pool.run(save_with_small_buckets, 2, folder=str(tmp_path), mended=mended)
    (stored,) = pool.run(weights_and_moments, 1, folder=str(tmp_path), values={})
    moments = {
        key.removeprefix("optimizer.state.exp_avg_sq."): value
        for key, value in stored["tensors"].items()
        if key.startswith("optimizer.state.exp_avg_sq.")
    }
    wrong = []
    for shards in ranks:
        for name, (start, shard) in shards.items():
            key = "context_head." + name.split("context_head.")[1] if "context_head." in name else name
            key = key.replace("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_")
            key = key.replace("input_layernorm.", "self_attention.linear_qkv.layer_norm_")
            saved = moments[key].ravel()[start : start + len(shard)]
            if len(saved) == len(shard) and not np.array_equal(saved, shard):
                wrong.append(name)
    # Without the mend this is the fault: a positive control for the comparison.
    assert bool(wrong) == (not mended), wrong
