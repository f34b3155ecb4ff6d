"""The lines with which a run begins: what is trained, on what, with which code."""

from __future__ import annotations

import torch
from megatron.core.optimizer import Adam

from contextlm.analysis.parameters import count_parameters
from contextlm.model.backends import choose_backend
from contextlm.training.setup import Run


def announcement(run: Run) -> tuple[str, ...]:
    """One line each for the model, the machine, the code behind it and the data."""
    config, parallel = run.config, run.config.parallel
    counts = count_parameters(config, run.tokenizer.vocab_size)
    head = f", {counts.context_head:,} of them in the context head" if config.context.enabled else ""
    backend = choose_backend(config.model.transformer_impl, config.training.bf16)
    samples, per_iteration = run.datasets.train, run.global_batch_size
    epoch = samples.samples_per_epoch
    epochs = config.training.train_iters * per_iteration / epoch
    return (
        f"{config.preset or 'model'}: {counts.total:,} parameters{head}, "
        f"{'bf16' if config.training.bf16 else 'fp32'}, vocabulary {run.tokenizer.vocab_size:,}",
        f"{run.runtime.world_size} {run.runtime.device.type} process(es) over {torch.distributed.get_backend()}: "
        f"TP {parallel.tensor_model_parallel_size} x PP {parallel.pipeline_model_parallel_size} "
        f"x DP {run.layout.data_parallel_size}, {run.num_microbatches} micro-batch(es) an iteration",
        f"layers of {type(backend).__name__}: {backend.core_attention().__name__}, {backend.layer_norm().__name__}; "
        f"optimizer {Adam.__name__} (torch {torch.__version__})",
        f"data: {epoch * config.model.seq_length:,} training tokens; "
        f"{config.training.train_iters:,} iterations are {epochs:.2f} epochs",
    )
