"""What one field cannot know: values against each other, the number of processes and the files they name.

Every check answers with sentences of flag, value and remedy, and none raises, so that a user sees all
mistakes at once and before any process group exists. Read next: the other `*_checks.py`, one subject each,
and `named_files.py`, the checks that look at the disk.
"""

from __future__ import annotations

import importlib.util

from contextlm.config.batch_checks import batch_problems
from contextlm.config.compile_unit import compile_problems
from contextlm.config.data_checks import missing_data, split_problems
from contextlm.config.fp8_checks import fp8_problems
from contextlm.config.idle_checks import idle_problems
from contextlm.config.logging_checks import missing_packages, profile_problems
from contextlm.config.named_files import checkpoint_problems, data_problems, folder_problems
from contextlm.config.parallel_checks import parallel_problems
from contextlm.config.pipeline_checks import pipeline_problems
from contextlm.config.recompute_checks import recompute_problems
from contextlm.config.resume_checks import allowed_problems
from contextlm.config.saving_checks import saving_problems
from contextlm.config.schedule_checks import schedule_problems
from contextlm.config.schema import Config
from contextlm.config.skipping_checks import skipping_problems
from contextlm.config.suggestions import divisors, nearest_numbers


def validate(config: Config, world_size: int | None, *, dry_run: bool = False) -> list[str]:
    """Everything that forbids training with this configuration; empty if nothing does.

    Args:
        world_size: number of processes; None is the smallest that the layout needs.
        dry_run: what a run needs may be missing; what is given is still checked.
    """
    world_size = world_size or config.parallel.model_parallel_size
    problems = [
        *_model(config),
        *_context(config),
        *parallel_problems(config, world_size),
        *pipeline_problems(config),
        *batch_problems(config, world_size),
        *recompute_problems(config),
        *compile_problems(config, config.data_parallel_size(world_size)),
        *_precision(config),
        *fp8_problems(config),
        *schedule_problems(config),
        *split_problems(config),
        *data_problems(config.data, config.model.vocab_size),
        *checkpoint_problems(config),
        *allowed_problems(config.checkpoint),
        *folder_problems(config),
        *saving_problems(config),
        *profile_problems(config, world_size),
        *skipping_problems(config),
        *idle_problems(config),
    ]
    return problems if dry_run else problems + _missing(config)


def _model(config: Config) -> list[str]:
    model, problems = config.model, []
    if model.hidden_size % model.num_attention_heads:
        near = nearest_numbers(model.num_attention_heads, divisors(model.hidden_size))
        problems.append(
            f"--num-attention-heads {model.num_attention_heads}: does not divide --hidden-size "
            f"{model.hidden_size}; "
            f"use {near} heads"
        )
    elif model.position_embedding_type == "rope":
        head = model.hidden_size // model.num_attention_heads
        rotated = int(model.rotary_percent * head)
        if rotated % 2 or rotated == 0:
            even = f"{2 / head:g}" if head >= 2 else "1 with wider heads (fewer --num-attention-heads)"
            problems.append(
                f"--rotary-percent {model.rotary_percent:g}: rotates {rotated} of a head's {head} values, "
                "which must be "
                f"an even number above 0; use a multiple of {even}"
            )
    if model.position_embedding_type == "learned_absolute" and model.seq_length > model.num_positions:
        problems.append(
            f"--max-position-embeddings {model.num_positions}: fewer positions than --seq-length "
            f"{model.seq_length}; "
            f"use at least {model.seq_length}, or drop it"
        )
    return problems


def _context(config: Config) -> list[str]:
    context, problems = config.context, []
    if context.context_control != "none":
        problems.append(
            f"--context-control {context.context_control}: only at evaluation (tools/evaluate.py); drop it for training"
        )
    if context.enabled and config.encoder_layers >= config.model.num_layers:
        problems.append(
            f"--context-encoder-layers {config.encoder_layers}: leaves no layer of --num-layers "
            f"{config.model.num_layers} to the token decoder; use at most {config.model.num_layers - 1}"
        )
    return problems


def _precision(config: Config) -> list[str]:
    training, optimizer, problems = config.training, config.optimizer, []
    if training.bf16 and training.fp16:
        problems.append("--bf16 and --fp16: weights have one precision; keep one of the two")
    least, first = optimizer.min_loss_scale, optimizer.initial_loss_scale
    if least > first:
        problems.append(f"--min-loss-scale {least:g}: above --initial-loss-scale {first:g}; use at most {first:g}")
    return problems


def _missing(config: Config) -> list[str]:
    """What a run, unlike a dry run, cannot do without."""
    problems = []
    training = config.training
    if training.train_iters is None and training.train_samples is None and not training.skip_train:
        problems.append(
            "--train-iters: missing; give the number of optimizer steps, e.g. --train-iters 1000, or --train-samples"
        )
    problems += missing_data(config)
    if config.data.tokenizer_type is None:
        problems.append(
            "--tokenizer-type: missing; give the one the data was made with, e.g. --tokenizer-type ByteTokenizer"
        )
    wants_te = config.model.transformer_impl == "transformer_engine"
    if wants_te and importlib.util.find_spec("transformer_engine") is None:
        problems.append("--transformer-impl transformer_engine: it is not installed here; use --transformer-impl auto")
    return problems + missing_packages(config.logging)
