"""Continue a run, or begin from weights: what `--load` and its like ask for, under any layout.

What the tensors are: `sharded_state.py`. The files around them: `checkpoint_folder.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint import CheckpointException

from contextlm.checkpoints import checkpoint_folder, compatibility, continuation, joint_look, rng_state, spike_window
from contextlm.checkpoints.checkpoint_folder import Candidates
from contextlm.checkpoints.optimizer_state import OptimizerState
from contextlm.checkpoints.selection import choose
from contextlm.checkpoints.sharded_state import metadata, weights_state
from contextlm.errors import UserError
from contextlm.parallel.layout import Layout
from contextlm.parallel.seeds import seed_dropout
from contextlm.training.setup import Run, gathered_weights

Say = Callable[[str], None]
_NO_WEIGHTS = ("optimizer.", rng_state.PREFIX, spike_window.PREFIX)


def load(run: Run, say: Say) -> int:
    """Start where `--load` or `--init-backbone-from` says; returns the iteration to continue after.

    `--finetune` and `--init-backbone-from` are ways to begin: the same command, run again after it has saved,
    continues what it began.

    Raises:
        UserError: nothing is there, it is damaged or of another model, or another run's checkpoints would be
            overwritten.
    """
    run.where.at("loading")
    given = run.config.checkpoint
    begins_elsewhere = given.finetune or given.init_backbone_from is not None
    saved_before = Candidates([]) if given.save is None else joint_look.candidates(given.save)
    source = given.load if given.init_backbone_from is None else given.init_backbone_from
    if saved_before.are_there and (begins_elsewhere or given.resumes_itself):
        _resume(run, _chosen(run, saved_before, say), say)
        return run.progress.iteration
    if saved_before.are_there:
        raise UserError(
            f"--save {given.save}: would overwrite {saved_before.first or 'checkpoints'} of another run; "
            f"continue that one with --load {given.save}, or save elsewhere"
        )
    if source is None or given.resumes_itself:
        say(f"fresh start: no checkpoint in {given.load}" if given.load else "fresh start")
        return 0
    folder = _chosen(run, joint_look.candidates(source), say)
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
        UserError: nothing is there, it is damaged, or it is of another model.
    """
    given = run.config.checkpoint
    source = given.load if given.init_backbone_from is None else given.init_backbone_from
    assert source is not None  # checked with the configuration
    folder = _chosen(run, joint_look.candidates(source), say)
    load_weights(run, folder, backbone_only=given.init_backbone_from is not None)
    run.progress.iteration = checkpoint_folder.read_run(folder)["iteration"]
    say(f"weights of {folder}, iteration {run.progress.iteration}")


def roll_back(run: Run, folder: Path, say: Say) -> None:
    """Put a run that has trained on back to one of its checkpoints; what reads its data must begin anew."""
    with gathered_weights(run):
        _resume(run, folder, say)


def _chosen(run: Run, there: Candidates, say: Say) -> Path:
    """The checkpoint to load, looked at by all ranks together.

    Raises:
        UserError: none is there, or it is damaged.
    """
    given = run.config.checkpoint
    look = functools.partial(joint_look.damage, hashes=given.verify_integrity)
    remedy = "--load-fallback goes on from the newest intact one before it"
    folder = choose(there, say, damage=look, may_fall_back=given.load_fallback, remedy=remedy)
    if folder is None:
        backbone = given.init_backbone_from
        source = f"--load {given.load}" if backbone is None else f"--init-backbone-from {backbone}"
        raise UserError(f"{source}: holds no complete checkpoint; check the path")
    return folder


def _resume(run: Run, folder: Path, say: Say) -> None:
    """Continue a run: weights, optimizer, generators and position in the data."""
    continuation.check(folder, run.config, run.runtime.world_size, run.tokenizer, run.datasets, say)
    saved = checkpoint_folder.read_run(folder)
    state = weights_state(run.language_model, run.layout)
    optimizer = OptimizerState(run.optimizer, dict(state), metadata(run.layout), is_loading=True)
    state["optimizer"] = optimizer.to_disk()
    state["rng"] = rng_state.to_load(run.runtime.rank, saved["world_size"])
    state["spikes"] = spike_window.to_save(run.skipping.spikes, run.runtime.rank)
    # A checkpoint of another kind of device has other generators.
    may_differ = (rng_state.PREFIX, spike_window.PREFIX)
    loaded = _read(state, folder, may_lack=may_differ, may_ignore=may_differ)
    _set_weights(run.language_model, loaded)
    optimizer.restore(loaded["optimizer"])
    run.progress.iteration = saved["iteration"]
    run.progress.consumed_samples = saved["consumed_samples"]
    run.progress.skipped_iterations = [(n, why) for n, why in saved.get("skipped_iterations", ())]
    spike_window.restore(run.skipping.spikes, loaded.get("spikes", {}))
    run.progress.failed_saves = saved.get("failed_saves", 0)
    same_layout = saved["layout"] == run.layout_words and saved["device"] == run.runtime.device.type
    if same_layout:
        rng_state.restore({name: rows[run.runtime.rank].clone() for name, rows in loaded["rng"].items()})
    else:
        seed_dropout(run.config.training.seed + run.progress.iteration, run.layout)
    if run.datasets.evaluation_fingerprint != saved.get("evaluation_fingerprint"):
        say("note: validation or test data are not the checkpoint's: their losses cannot be compared with earlier ones")
    note = "" if same_layout else f" (saved under {saved['layout']}, continued under {run.layout_words})"
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
    loaded = _read(weights_state(parts, layout), folder, may_lack=may_lack, may_ignore=_NO_WEIGHTS)
    _set_weights(parts, loaded)


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
