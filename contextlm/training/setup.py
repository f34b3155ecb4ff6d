"""Builds a run, in the order in which its parts need each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.utils import get_model_config

from contextlm.config.schema import Config
from contextlm.data.datasets import Datasets
from contextlm.data.loader import micro_batches
from contextlm.data.samples import Samples
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.model.builder import build_model
from contextlm.model.language_model import ContextLM
from contextlm.parallel.layout import Layout
from contextlm.parallel.runtime import Runtime
from contextlm.parallel.seeds import seed_dropout, seed_weights
from contextlm.training.optimizer import build_optimizer


@dataclass
class Progress:
    """How far the run is: the only thing about it that changes, besides weights and generators."""

    iteration: int = 0
    consumed_samples: int = 0


@dataclass(frozen=True)
class Run:
    """Everything that an iteration needs."""

    config: Config
    runtime: Runtime
    layout: Layout
    tokenizer: Tokenizer
    datasets: Datasets
    model: DistributedDataParallel
    optimizer: MegatronOptimizer
    token_byte_lengths: torch.Tensor | None
    progress: Progress

    @property
    def global_batch_size(self) -> int:
        """Samples per iteration."""
        return self.config.global_batch_size(self.runtime.world_size)

    @property
    def num_microbatches(self) -> int:
        """Forward passes of each data-parallel rank per iteration."""
        return self.config.num_microbatches(self.runtime.world_size)

    @property
    def language_model(self) -> ContextLM:
        """This rank's stage without the wrappers for gradient buffers and precision."""
        module = self.model.module
        return module.module if isinstance(module, Float16Module) else module

    @property
    def reads_tokens(self) -> bool:
        """Whether this rank's stage embeds tokens or computes the loss."""
        return self.layout.pipeline_rank == 0 or self.layout.is_last_stage

    def micro_batches(
        self, samples: Samples, first_sample: int, num_microbatches: int, last_sample: int | None = None
    ) -> Iterator[torch.Tensor] | None:
        """This rank's micro-batches [B, S + 1] from `first_sample` on; None on a stage that needs none."""
        if not self.reads_tokens:
            return None
        return micro_batches(
            samples,
            first_sample,
            self.config.training.micro_batch_size,
            self.layout.data_rank,
            self.layout.data_parallel_size,
            num_microbatches,
            last_sample,
        )


def setup(config: Config, runtime: Runtime, layout: Layout, tokenizer: Tokenizer, datasets: Datasets) -> Run:
    """Model and optimizer, beside the data: everything but what a checkpoint brings."""
    seed_weights(config.training.seed, layout)
    model = wrap_model(config, tokenizer.vocab_size, layout)
    optimizer = build_optimizer(config, model)
    get_model_config(model).grad_scale_func = optimizer.scale_loss
    seed_dropout(config.training.seed, layout)
    lengths = tokenizer.token_byte_lengths()
    return Run(
        config,
        runtime,
        layout,
        tokenizer,
        datasets,
        model,
        optimizer,
        None if lengths is None else torch.from_numpy(lengths).to(runtime.device),
        Progress(),
    )


def wrap_model(config: Config, vocab_size: int, layout: Layout) -> DistributedDataParallel:
    """This rank's stage on its device, in its precision, behind megatron-core's gradient buffers."""
    model = build_model(config, vocab_size, layout.groups).to(torch.cuda.current_device())
    transformer_config = get_model_config(model)
    wrapped = DistributedDataParallel(
        transformer_config,
        DistributedDataParallelConfig(
            # Gradients of 16-bit weights are summed in fp32, over micro-batches and over ranks.
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=config.parallel.use_distributed_optimizer,
        ),
        Float16Module(transformer_config, model) if config.training.bf16 else model,
    )
    wrapped.broadcast_params()
    transformer_config.finalize_model_grads_func = finalize_model_grads
    return wrapped
