"""The lines with which a run begins: what is trained, on what, with which code."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from megatron.core.optimizer import Adam

from contextlm.analysis.parameters import count_parameters
from contextlm.config.batch_ramp import samples_after
from contextlm.config.layout_words import layout_words
from contextlm.model.backends import choose_backend
from contextlm.training.setup import Run


def announcement(run: Run) -> tuple[str, ...]:
    """One line each for the model, the machine, the code behind it and the data."""
    config = run.config
    counts = count_parameters(config, run.tokenizer.vocab_size)
    head = f", {counts.context_head:,} of them in the context head" if config.context.enabled else ""
    backend = choose_backend(config.model.transformer_impl, config.half_precision)
    return (
        f"{config.preset or 'model'}: {counts.total:,} parameters{head}, "
        f"{config.precision}, vocabulary {run.tokenizer.vocab_size:,}",
        f"{run.runtime.world_size} {run.runtime.device.type} process(es) over {torch.distributed.get_backend()}: "
        f"{layout_words(config, run.runtime.world_size)}, {run.num_microbatches} micro-batch(es) an iteration"
        f"{' at first' if config.training.rampup_batch_size else ''}",
        f"layers of {type(backend).__name__}: {backend.core_attention().__name__}, {backend.layer_norm().__name__}; "
        f"optimizer {Adam.__name__} (torch {torch.__version__})",
        "data: " + "; ".join(_data(run)),
    )


def _data(run: Run) -> Iterator[str]:
    """How much there is for each split, and how much of it the run takes."""
    data, length = run.datasets, run.config.model.seq_length
    if data.train is not None:
        epoch = data.train.samples_per_epoch
        epochs = samples_after(run.config, run.runtime.world_size, run.num_iterations) / epoch
        yield f"{epoch * length:,} training tokens"
        yield f"{run.num_iterations:,} iterations are {epochs:.2f} epochs"
    sets = data.validation_sets or {"validation": data.validation}
    for name, samples in (*sets.items(), ("test", data.test)):
        if samples is not None:
            yield f"{name} {samples.samples_per_epoch * length:,}"
