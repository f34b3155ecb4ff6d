"""Save and load a run in megatron-core's torch_dist format, under any tensor x pipeline x data layout.

What is stored, by key: the backbone's weights as `embedding.`, `decoder.`, `output_layer.`; the head's as
`context_head.`; the optimizer's state as `optimizer.state.<kind>.<weight>`; generators as `rng.`. The files
around them are `checkpoint_folder.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint import CheckpointException

from contextlm import atomic_files
from contextlm.config.batch_ramp import with_batch_size
from contextlm.config.layout_words import layout_words
from contextlm.config.schema import Config
from contextlm.config.yaml_file import write as write_config
from contextlm.errors import UserError
from contextlm.parallel.layout import Layout
from contextlm.parallel.seeds import seed_dropout
from contextlm.training import checkpoint_folder, compatibility, continuation, rng_state
from contextlm.training.optimizer_state import OptimizerState
from contextlm.training.provenance import made_by
from contextlm.training.setup import Run, gathered_weights

Say = Callable[[str], None]

# How the tensors are laid out on disk: layers one by one (one of them may carry the head) and the optimizer's
# state in the shape of the weights, so that any layout can read it.
CONTENT = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "non_homogeneous_layers": True,
    "chained_optim_avoid_prefix": True,
    "singleton_local_shards": False,
}
# Whether data-parallel rank 0 alone gathers the optimizer's state when saving.
_SPARING = "distrib_optim_fully_reshardable_mem_efficient"


def save(run: Run, say: Say) -> None:
    """Write the checkpoint of the current iteration, if `--save` asks for one. Every rank must call it.

    Raises:
        UserError: on every rank, what any of them could not write; the checkpoints before are as they were.
    """
    root = run.config.checkpoint.save
    if root is None:
        return
    iteration, is_first = run.progress.iteration, run.runtime.rank == 0
    temporary = checkpoint_folder.temporary_folder(root, iteration)
    if is_first:
        checkpoint_folder.begin(temporary)
    torch.distributed.barrier()
    with gathered_weights(run):
        state = weights_state(run.language_model, run.layout)
        sparing = {_SPARING: run.config.checkpoint.distrib_optim_fully_reshardable_mem_efficient}
        optimizer = OptimizerState(run.optimizer, dict(state), _metadata(run.layout) | sparing, is_loading=False)
        state["optimizer"] = optimizer.to_disk()
        state["rng"] = rng_state.to_save(run.runtime.rank, run.runtime.world_size)
        try:
            dist_checkpointing.save(state, str(temporary), content_metadata=CONTENT)
        except CheckpointException as error:  # not an Exception
            raise UserError(f"checkpoint {temporary} cannot be written: {_everyones(error)}") from error
    if is_first:
        write_config(_resolved(run), temporary / checkpoint_folder.CONFIG_FILE)
        run.tokenizer.save(temporary)
        atomic_files.write_json(temporary / checkpoint_folder.RUN_FILE, _describe(run))
        checkpoint_folder.publish(temporary, iteration)
    torch.distributed.barrier()
    say(f"saved checkpoint {checkpoint_folder.iteration_folder(root, iteration)}")


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
        write_config(_resolved(run), Path(run.config.output_dir, checkpoint_folder.CONFIG_FILE))


def load(run: Run, say: Say) -> int:
    """Start where `--load` or `--init-backbone-from` says; returns the iteration to continue after.

    `--finetune` and `--init-backbone-from` are ways to begin: the same command, run again after it has saved,
    continues what it began.

    Raises:
        UserError: nothing is there, it is of another model, or another run's checkpoints would be overwritten.
    """
    given = run.config.checkpoint
    begins_elsewhere = given.finetune or given.init_backbone_from is not None
    saved_before = None if given.save is None else checkpoint_folder.find(given.save)
    source = given.load if given.init_backbone_from is None else given.init_backbone_from
    if saved_before is not None and (begins_elsewhere or given.resumes_itself):
        _resume(run, saved_before, say)
        return run.progress.iteration
    if saved_before is not None:
        raise UserError(
            f"--save {given.save}: would overwrite {saved_before} of another run; "
            f"continue that one with --load {given.save}, or save elsewhere"
        )
    if source is None or given.resumes_itself:
        say(f"fresh start: no checkpoint in {given.load}" if given.load else "fresh start")
        return 0
    folder = checkpoint_folder.find(source)
    if folder is None:
        flag = "--load" if given.init_backbone_from is None else "--init-backbone-from"
        raise UserError(f"{flag} {source}: holds no complete checkpoint; check the path")
    if given.init_backbone_from is not None:
        load_weights(run, folder, backbone_only=True)
        say(f"new context head on the backbone of {folder}")
    elif given.finetune:
        load_weights(run, folder)
        say(f"weights of {folder}; iteration, optimizer and data start anew")
    else:
        _resume(run, folder, say)
    return run.progress.iteration


def load_to_evaluate(run: Run, say: Say) -> None:
    """Take weights and iteration of the checkpoint of `--load`, or of `--init-backbone-from`, and nothing else.

    Raises:
        UserError: it is of another model.
    """
    given = run.config.checkpoint
    source = given.load if given.init_backbone_from is None else given.init_backbone_from
    folder = None if source is None else checkpoint_folder.find(source)
    assert folder is not None, source  # checked with the configuration
    load_weights(run, folder, backbone_only=given.init_backbone_from is not None)
    run.progress.iteration = checkpoint_folder.read_run(folder)["iteration"]
    say(f"weights of {folder}, iteration {run.progress.iteration}")


def _resume(run: Run, folder: Path, say: Say) -> None:
    """Continue a run: weights, optimizer, generators and position in the data."""
    compatibility.check(folder, run.config, run.tokenizer, with_optimizer=True)
    saved = checkpoint_folder.read_run(folder)
    continuation.check_batch_size(run.config, run.runtime.world_size, saved)
    state = weights_state(run.language_model, run.layout)
    optimizer = OptimizerState(run.optimizer, dict(state), _metadata(run.layout), is_loading=True)
    state["optimizer"] = optimizer.to_disk()
    state["rng"] = rng_state.to_load(run.runtime.rank, saved["world_size"])
    names = _names_by_key(state, len(run.model))
    # A checkpoint of another kind of device has other generators.
    loaded = _read(state, folder, may_lack=(rng_state.PREFIX,), may_ignore=(rng_state.PREFIX,))
    _set_weights(run.language_model, loaded)
    optimizer.restore(loaded["optimizer"], {key: loaded[part][name] for key, (part, name) in names.items()})
    run.progress.iteration = saved["iteration"]
    run.progress.consumed_samples = saved["consumed_samples"]
    same_layout = saved["layout"] == _layout(run) and saved["device"] == run.runtime.device.type
    if same_layout:
        rng_state.restore({name: rows[run.runtime.rank].clone() for name, rows in loaded["rng"].items()})
    else:
        seed_dropout(run.config.training.seed + run.progress.iteration, run.layout)
    if run.datasets.evaluation_fingerprint != saved.get("evaluation_fingerprint"):
        say("note: validation or test data are not the checkpoint's: their losses cannot be compared with earlier ones")
    if run.datasets.train is not None and saved["data_fingerprint"] != run.datasets.fingerprint:
        say("warning: data, blend, --split, --seq-length or --seed are not the checkpoint's: the sample order changes")
    for name, (before, after) in continuation.changed_options(folder, _resolved(run)).items():
        say(f"note: --{name.replace('_', '-')} {before} -> {after}")
    note = "" if same_layout else f" (saved under {saved['layout']}, continued under {_layout(run)})"
    say(f"resumed from {folder}, iteration {run.progress.iteration}{note}")


def load_weights(run: Run, folder: Path, *, backbone_only: bool = False) -> None:
    """Take the weights alone; the optimizer starts anew from them.

    Args:
        run: the run, freshly built.
        folder: the checkpoint.
        backbone_only: the checkpoint is a plain model's; the head keeps its initial weights.
    """
    compatibility.check(folder, run.config, run.tokenizer, backbone_only=backbone_only)
    read_weights(run.language_model, run.layout, folder, may_lack=("context_head.",) if backbone_only else ())
    run.optimizer.reload_model_params()


def read_weights(
    parts: Sequence[torch.nn.Module], layout: Layout, folder: Path, *, may_lack: tuple[str, ...] = ()
) -> None:
    """Fill a model with the weights of a checkpoint; what else is stored there is left.

    Args:
        parts: this rank's stage.
        layout: the groups it was built for.
        folder: the checkpoint.
        may_lack: prefixes of keys that the checkpoint need not have.
    """
    loaded = _read(weights_state(parts, layout), folder, may_lack=may_lack, may_ignore=("optimizer.", rng_state.PREFIX))
    _set_weights(parts, loaded)


def weights_state(parts: Sequence[torch.nn.Module], layout: Layout) -> ShardedStateDict:
    """The weights of this rank's stage, `model0` and on by part, described for megatron-core."""
    return {f"model{index}": part.sharded_state_dict(metadata=_metadata(layout)) for index, part in enumerate(parts)}


def _metadata(layout: Layout) -> dict[str, Any]:
    """What `sharded_state_dict` must know; the group is not for the disk."""
    return CONTENT | {"dp_cp_group": layout.groups.dp_cp}


def _read(
    state: ShardedStateDict, folder: Path, *, may_lack: tuple[str, ...] = (), may_ignore: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read what `state` asks for, strictly.

    Args:
        state: the tensors to fill.
        folder: the checkpoint.
        may_lack: prefixes of keys that the checkpoint need not have.
        may_ignore: prefixes of keys of the checkpoint that need not be read.

    Raises:
        UserError: any other key that only one side has.
    """
    try:
        loaded, ignored, lacking = dist_checkpointing.load(state, str(folder), strict=StrictHandling.RETURN_ALL)
    except CheckpointException as error:  # not an Exception
        raise UserError(f"checkpoint {folder} cannot be read: {error}") from error
    problems = [f"{key}: the model has it, the checkpoint does not" for key in lacking if not key.startswith(may_lack)]
    problems += [
        f"{key}: the checkpoint has it, the model does not" for key in ignored if not key.startswith(may_ignore)
    ]
    found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, problems)  # a rank that raised alone would leave the others waiting
    if everyones := sorted({problem for problems in found for problem in problems}):
        raise UserError(f"checkpoint {folder} does not fit:", *everyones)
    return loaded


def _set_weights(parts: Sequence[torch.nn.Module], state: dict[str, Any]) -> None:
    """Put loaded weights into the model; what was not read must have been allowed by `_read`."""
    for index, part in enumerate(parts):
        result = part.load_state_dict(state[f"model{index}"], strict=False)
        absent = [key for key in result.missing_keys if "_extra_state" not in key and "context_head" not in key]
        assert not absent and not result.unexpected_keys, (absent, result.unexpected_keys)


def _names_by_key(state: ShardedStateDict, num_parts: int) -> dict[str, tuple[str, str]]:
    """Part and name of this rank's weights by their names in the checkpoint."""
    parts = [f"model{index}" for index in range(num_parts)]
    return {sharded.key: (part, name) for part in parts for name, sharded in state[part].items()}


def _resolved(run: Run) -> Config:
    return with_batch_size(run.config, run.runtime.world_size)


def _layout(run: Run) -> str:
    return layout_words(run.config, run.runtime.world_size)


def _describe(run: Run) -> dict[str, Any]:
    """`run.json`: where the run stands and what made it."""
    return {
        **asdict(run.progress),
        "global_batch_size": run.global_batch_size,
        "world_size": run.runtime.world_size,
        "layout": _layout(run),
        "device": run.runtime.device.type,
        "vocab_size": run.tokenizer.vocab_size,
        "tokenizer_fingerprint": run.tokenizer.fingerprint,
        "data_fingerprint": run.datasets.fingerprint,
        "evaluation_fingerprint": run.datasets.evaluation_fingerprint,
        **made_by(),
    }
