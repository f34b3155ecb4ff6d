"""Builds a run, in the order in which its parts need each other."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.utils import get_model_config

from contextlm.config.batch_ramp import batch_size_at, num_iterations, with_batch_size
from contextlm.config.layout_words import layout_words
from contextlm.config.schema import Config
from contextlm.data.datasets import Datasets
from contextlm.data.loader import Stream, micro_batches
from contextlm.data.samples import Samples
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.megatron.gradient_sums import GradientSums
from contextlm.model.builder import build_model
from contextlm.model.compilation import compile_parts, compiled_unit, is_replayed
from contextlm.model.language_model import ContextLM
from contextlm.model.token_batch import DocumentEnds
from contextlm.parallel.layout import Layout
from contextlm.parallel.runtime import Runtime
from contextlm.parallel.seeds import seed_dropout, seed_weights
from contextlm.training.optimizer import build_optimizer
from contextlm.training.skipping import Skipping
from contextlm.training.unbuffered import leave_gradients, without_buffers
from contextlm.training.whereabouts import Whereabouts


@dataclass
class Progress:
    """How far the run is: the only thing about it that changes, besides weights and generators."""

    iteration: int = 0
    consumed_samples: int = 0
    skipped_iterations: list[tuple[int, str]] = field(default_factory=list)  # those told of, and why
    failed_saves: int = 0


@dataclass(frozen=True)
class Run:
    """Everything that an iteration needs.

    `model` is this rank's stage of the pipeline: one part, or several where the pipeline is interleaved.
    """

    config: Config
    runtime: Runtime
    layout: Layout
    tokenizer: Tokenizer
    datasets: Datasets
    model: tuple[DistributedDataParallel, ...]
    optimizer: MegatronOptimizer
    skipping: Skipping
    token_byte_lengths: torch.Tensor | None
    progress: Progress
    where: Whereabouts

    @property
    def resolved_config(self) -> Config:
        """The configuration with the batch size that follows from the number of processes, where none was given."""
        return with_batch_size(self.config, self.runtime.world_size)

    @property
    def layout_words(self) -> str:
        """The layout for people."""
        return layout_words(self.config, self.runtime.world_size)

    @functools.cached_property
    def num_iterations(self) -> int:
        """Iterations of the whole run."""
        return num_iterations(self.config, self.runtime.world_size)

    @property
    def schedule_position(self) -> int:
        """Where the next iteration stands in the schedules: its number, or the samples consumed at its end."""
        in_samples = self.config.training.train_samples is not None
        return self.progress.consumed_samples + self.global_batch_size if in_samples else self.progress.iteration + 1

    @property
    def global_batch_size(self) -> int:
        """Samples of the next iteration."""
        return batch_size_at(self.config, self.runtime.world_size, self.progress.consumed_samples)

    @property
    def samples_of_a_pass(self) -> int:
        """Samples of one micro-batch on every data-parallel rank."""
        return self.config.training.micro_batch_size * self.layout.data_parallel_size

    @property
    def num_microbatches(self) -> int:
        """Forward passes of each data-parallel rank in the next iteration."""
        return self.num_microbatches_at(self.progress.consumed_samples)

    def num_microbatches_at(self, consumed_samples: int) -> int:
        """Forward passes of each data-parallel rank in the iteration that begins after `consumed_samples`."""
        batch_size = batch_size_at(self.config, self.runtime.world_size, consumed_samples)
        return batch_size // self.samples_of_a_pass

    @property
    def language_model(self) -> tuple[ContextLM, ...]:
        """The parts of this rank's stage without the wrappers for gradient buffers and precision."""
        return tuple(part.module.module if self.config.half_precision else part.module for part in self.model)

    @functools.cached_property
    def document_ends(self) -> DocumentEnds:
        """What the end of a document changes."""
        return DocumentEnds.of(self.config.data, self.tokenizer)

    @property
    def parts_that_read(self) -> tuple[bool, ...]:
        """Whether each part of this rank's stage reads tokens: embeds them, computes the loss, or finds documents."""
        every = self.document_ends.matter_to_layers
        return tuple(every or part.pre_process or part.post_process for part in self.language_model)

    def micro_batches(
        self,
        samples: Samples | None,
        first_sample: int,
        num_microbatches: int | Callable[[int], int],
        last_sample: int | None = None,
    ) -> Stream | None:
        """This rank's micro-batches [B, S + 1] from `first_sample` on; None on a stage that needs none."""
        if not any(self.parts_that_read):
            return None
        assert samples is not None  # a run without any does not begin
        return micro_batches(
            samples,
            first_sample,
            self.config.training.micro_batch_size,
            self.layout.data_rank,
            self.layout.data_parallel_size,
            num_microbatches,
            last_sample,
        )


def setup(
    config: Config,
    runtime: Runtime,
    layout: Layout,
    tokenizer: Tokenizer,
    datasets: Datasets,
    where: Whereabouts | None = None,
) -> Run:
    """Model and optimizer, beside the data: everything but what a checkpoint brings."""
    where = where or Whereabouts()
    where.at("building the model")
    seed_weights(config.training.seed, layout)
    model = wrap_model(config, tokenizer.vocab_size, layout)
    where.at("building the optimizer")
    optimizer = build_optimizer(config, model)
    if without_buffers(config, runtime.world_size, runtime.device):
        leave_gradients(model, optimizer)
    get_model_config(model[0]).grad_scale_func = optimizer.scale_loss
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
        Skipping(config, runtime.device),
        None if lengths is None else torch.from_numpy(lengths).to(runtime.device),
        Progress(),
        where,
    )


def wrap_model(config: Config, vocab_size: int, layout: Layout) -> tuple[DistributedDataParallel, ...]:
    """This rank's stage on its device, in its precision, behind megatron-core's gradient buffers."""
    parallel = config.parallel
    model = [part.to(torch.cuda.current_device()) for part in build_model(config, vocab_size, layout.groups)]
    copies, device = layout.data_parallel_size, next(model[0].parameters()).device
    unit = compiled_unit(config, copies, device)
    compile_parts(model, unit, is_replayed(config, copies, device))
    transformer_config = get_model_config(model[0])
    # One copy of the model has nobody to overlap its messages with.
    overlaps = parallel.overlap_grad_reduce and (layout.data_parallel_size > 1 or parallel.overlap_param_gather)
    buffers = DistributedDataParallelConfig(
        grad_reduce_in_fp32=parallel.accumulate_allreduce_grads_in_fp32,
        use_distributed_optimizer=parallel.use_distributed_optimizer,
        overlap_grad_reduce=overlaps,
        overlap_param_gather=parallel.overlap_param_gather,
        bucket_size=parallel.ddp_bucket_size,
    )
    wrapped = tuple(
        DistributedDataParallel(
            transformer_config,
            buffers,
            Float16Module(transformer_config, part) if config.half_precision else part,
            # The communication of later parts overlaps with the work of earlier ones anyway.
            disable_bucketing=index > 0,
        )
        for index, part in enumerate(model)
    )
    for part in wrapped:
        part.broadcast_params()
        if unit == "model" and device.type == "cuda":
            assert not overlaps, "a reduction that begins before the backward pass ends would miss what waits"
            part.gradient_sums = GradientSums()  # one graph gives out all gradients at once
    transformer_config.finalize_model_grads_func = finalize_model_grads
    if overlaps:
        # Until the last micro-batch gradients are only accumulated.
        no_sync = [part.no_sync for part in wrapped]
        transformer_config.no_sync_func = no_sync if len(wrapped) > 1 else no_sync[0]
    return wrapped


@contextlib.contextmanager
def gathered_weights(run: Run) -> Iterator[None]:
    """Inside, the weights of every rank are those after the last update, and stay.

    With `--overlap-param-gather` a rank updates its share of the weights and gathers the others' when the next
    forward pass asks for them: what is read before is stale.
    """
    overlapped = run.config.parallel.overlap_param_gather
    for part in run.model if overlapped else ():
        part.disable_forward_pre_hook(param_sync=True)
    try:
        yield
    finally:
        for part in run.model if overlapped else ():
            part.enable_forward_pre_hook()
