"""Open any checkpoint in one process, on CPU or GPU, without the run that made it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contextlm.checkpoints import checkpoint_folder
from contextlm.checkpoints.selection import choose
from contextlm.config.schema import Config, ParallelConfig
from contextlm.config.yaml_file import load as load_config
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import load_tokenizer
from contextlm.errors import UserError
from contextlm.megatron.kernel_compiler import compiler_problems
from contextlm.parallel import runtime

if TYPE_CHECKING:
    from contextlm.model.language_model import ContextLM
    from contextlm.model.token_batch import DocumentEnds
    from contextlm.parallel.layout import Layout


@dataclass(frozen=True)
class Opened:
    """A model ready to score and to sample, in evaluation mode, with what its checkpoint says of it.

    `document_ends` is what the end of a document changed in its training.
    """

    folder: Path
    config: Config
    facts: dict[str, Any]
    tokenizer: Tokenizer
    document_ends: DocumentEnds
    model: ContextLM
    device: torch.device


@contextlib.contextmanager
def opened(path: str | Path, context_control: str = "none", *, in_fp32: bool = False) -> Iterator[Opened]:
    """Load a checkpoint saved under any layout into this process.

    Args:
        path: a `--save` folder (its newest checkpoint) or an `iter_` folder.
        context_control: what replaces the prediction (see `--context-control`).
        in_fp32: compute in fp32 on a GPU too, whatever the model was trained in.

    Raises:
        UserError: there is no checkpoint, or it is incomplete or damaged.
    """
    folder = choose(checkpoint_folder.candidates(path), lambda line: print(line, file=sys.stderr))
    if folder is None:
        raise UserError(f"--load {path}: holds no checkpoint; give a folder that --save made")
    facts, saved = checkpoint_folder.read_run(folder), load_config(folder / checkpoint_folder.CONFIG_FILE)
    if context_control != "none" and not saved.context.enabled:
        raise UserError(f"--context-control {context_control}: {folder} is a plain model without a context head")
    config = _alone(saved, context_control)
    if in_fp32:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, bf16=False, fp16=False))
    tokenizer = load_tokenizer(folder)
    with built(config, tokenizer.vocab_size) as (model, layout, device):
        from contextlm.checkpoints.loading import read_weights
        from contextlm.model.token_batch import DocumentEnds

        read_weights([model], layout, folder)
        ends = DocumentEnds.of(config.data, tokenizer)
        yield Opened(folder, config, facts, tokenizer, ends, model.to(device).eval(), device)


def _alone(saved: Config, context_control: str) -> Config:
    """The configuration of a run, for one process that only computes."""
    return dataclasses.replace(
        saved,
        model=dataclasses.replace(saved.model, transformer_impl="auto"),  # weights fit every backend
        parallel=ParallelConfig(),
        training=dataclasses.replace(
            saved.training,
            bf16=saved.training.bf16 and torch.cuda.is_available(),
            fp16=saved.training.fp16 and torch.cuda.is_available(),
            fp8_format=None,  # the weights are not rounded
            fp8_recipe=None,
            recompute_granularity=None,
        ),
        context=dataclasses.replace(saved.context, context_control=context_control),
    )


@contextlib.contextmanager
def built(config: Config, vocab_size: int) -> Iterator[tuple[ContextLM, Layout, torch.device]]:
    """A model with new weights in this process, without gradients; and the groups and the device it is for.

    Raises:
        UserError: the kernels of a CUDA device cannot be compiled here.
    """
    if problems := compiler_problems():
        raise UserError(*problems)
    with runtime.start(config.parallel) as process:
        # megatron-core's modules look at the device when they are imported.
        from contextlm.model.builder import build_model
        from contextlm.parallel.layout import model_parallel
        from contextlm.parallel.seeds import seed_weights

        with model_parallel(config.parallel) as layout, torch.no_grad():
            seed_weights(config.training.seed, layout)
            (model,) = build_model(config, vocab_size, layout.groups)
            if config.half_precision:
                model = model.bfloat16() if config.training.bf16 else model.half()
            yield model, layout, process.device
