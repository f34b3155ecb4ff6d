"""Save a run in megatron-core's torch_dist format, for any tensor x pipeline x data layout to read.

What the tensors are: `sharded_state.py`. The files around them: `checkpoint_folder.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from torch.distributed.checkpoint import CheckpointException

from contextlm import atomic_files
from contextlm.checkpoints import checkpoint_folder, manifest, rng_state, spike_window
from contextlm.checkpoints.optimizer_state import OptimizerState
from contextlm.checkpoints.sharded_state import CONTENT, metadata, weights_state
from contextlm.config.yaml_file import write as write_config
from contextlm.errors import UserError, tell_warnings
from contextlm.training.provenance import made_by
from contextlm.training.setup import Run, gathered_weights
from contextlm.training.whereabouts import SAVING

# Whether data-parallel rank 0 alone gathers the optimizer's state when saving.
_SPARING = "distrib_optim_fully_reshardable_mem_efficient"


def save(run: Run, say: Callable[[str], None]) -> None:
    """Write the checkpoint of the current iteration, if `--save` asks for one. Every rank must call it.

    Raises:
        UserError: on every rank, what any of them could not write; the checkpoints before are as they were.
    """
    root = run.config.checkpoint.save
    if root is None:
        return
    iteration, is_first = run.progress.iteration, run.runtime.rank == 0
    run.where.at(SAVING, iteration)
    temporary = checkpoint_folder.temporary_folder(root, iteration)
    if is_first:
        tell_warnings(checkpoint_folder.begin(temporary))
    torch.distributed.barrier()
    with gathered_weights(run):
        state = weights_state(run.language_model, run.layout)
        sparing = {_SPARING: run.config.checkpoint.distrib_optim_fully_reshardable_mem_efficient}
        optimizer = OptimizerState(run.optimizer, dict(state), metadata(run.layout) | sparing, is_loading=False)
        state["optimizer"] = optimizer.to_disk()
        state["rng"] = rng_state.to_save(run.runtime.rank, run.runtime.world_size)
        state["spikes"] = spike_window.to_save(run.skipping.spikes, run.runtime.rank)
        try:
            dist_checkpointing.save(state, str(temporary), content_metadata=CONTENT)
        except CheckpointException as error:  # not an Exception
            raise UserError(f"checkpoint {temporary} cannot be written: {_everyones(error)}") from error
    if is_first:
        write_config(run.resolved_config, temporary / checkpoint_folder.CONFIG_FILE)
        run.tokenizer.save(temporary)
        atomic_files.write_json(temporary / checkpoint_folder.RUN_FILE, _describe(run))
    digests = _everyones_digests(temporary, run.runtime.rank)
    if is_first:
        manifest.write(temporary, digests)
        checkpoint_folder.publish(temporary, iteration)
    torch.distributed.barrier()
    say(f"saved checkpoint {checkpoint_folder.iteration_folder(root, iteration)}")


def _everyones_digests(folder: Path, rank: int) -> manifest.Digests:
    """What all ranks wrote; each of them reads its own files again."""
    found: list[Any] = [None] * torch.distributed.get_world_size()
    try:
        own: Any = manifest.digests(folder, manifest.written_by(folder, rank))
    except OSError as error:
        own = f"rank {rank}: {error}"
    torch.distributed.all_gather_object(found, own)  # a rank that raised alone would leave the others waiting
    if problems := [problem for problem in found if isinstance(problem, str)]:
        raise UserError(f"checkpoint {folder} cannot be hashed: {'; '.join(problems)}")
    return {name: digest for files in found for name, digest in files.items()}


def _everyones(error: CheckpointException) -> str:
    """The causes on all ranks: the error is raised on each of them, but only the first rank's knows the causes."""
    found: list[dict[int, str]] = [{} for _ in range(torch.distributed.get_world_size())]
    causes = {rank: str(cause) for rank, (cause, _) in error.failures.items()}
    torch.distributed.all_gather_object(found, causes)
    together = {rank: cause for causes in found for rank, cause in causes.items()}
    return "; ".join(f"rank {rank}: {cause}" for rank, cause in sorted(together.items()))


def save_config(run: Run) -> None:
    """Write the run's `config.yaml` beside its metrics, for `--config`."""
    if run.config.output_dir is not None and run.runtime.rank == 0:
        write_config(run.resolved_config, Path(run.config.output_dir, checkpoint_folder.CONFIG_FILE))


def _describe(run: Run) -> dict[str, Any]:
    """`run.json`: where the run stands and what made it."""
    return {
        **asdict(run.progress),
        "skipped_in_all": Counter(why for _, why in run.progress.skipped_iterations),
        "global_batch_size": run.global_batch_size,
        "world_size": run.runtime.world_size,
        "layout": run.layout_words,
        "device": run.runtime.device.type,
        "vocab_size": run.tokenizer.vocab_size,
        "tokenizer_fingerprint": run.tokenizer.fingerprint,
        "data_fingerprint": run.datasets.fingerprint,
        "evaluation_fingerprint": run.datasets.evaluation_fingerprint,
        **made_by(),
    }
