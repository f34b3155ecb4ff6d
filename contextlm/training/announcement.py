"""The lines with which a run begins: what is trained, on what, with which code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.optimizer import Adam

from contextlm.analysis.parameters import count_parameters
from contextlm.config.batch_ramp import samples_after
from contextlm.config.layout_words import layout_words
from contextlm.config.schema import Config
from contextlm.data.data_table import Taken, data_table
from contextlm.data.samples import SourcedSamples
from contextlm.model import transformer_engine
from contextlm.model.attention import kernel_name
from contextlm.model.backends import TorchSpecProvider, choose_backend
from contextlm.model.compilation import compiled_unit, is_replayed
from contextlm.training.evaluation import evaluated_samples
from contextlm.training.setup import Run

_COMPILED = {
    "off": "not compiled",
    "layer": "compiled one by one (the first iterations wait for it)",
    "model": "compiled as one graph, embedding and output layer included (the first iterations wait for it)",
}


def announcement(run: Run) -> tuple[str, ...]:
    """One line each for the model, the machine and the code behind it, and a table of the data."""
    config = run.config
    counts = count_parameters(config, run.tokenizer.vocab_size)
    head = f", {counts.context_head:,} of them in the context head" if config.context.enabled else ""
    backend = choose_backend(config.model.transformer_impl, config.half_precision, config.fp8)
    return (
        f"{config.preset or 'model'}: {counts.total:,} parameters{head}, "
        f"{config.precision}{', products of its layers in fp8' if config.fp8 else ''}, "
        f"vocabulary {run.tokenizer.vocab_size:,}",
        f"{run.runtime.world_size} {run.runtime.device.type} process(es) over {torch.distributed.get_backend()}: "
        f"{layout_words(config, run.runtime.world_size)}, {run.num_microbatches} micro-batch(es) an iteration"
        f"{' at first' if config.training.rampup_batch_size else ''}",
        f"layers of {type(backend).__name__}: {backend.core_attention().__name__}{_kernel(run, backend)}, "
        f"{backend.layer_norm().__name__}{_declined(config)}, "
        f"{_compiled(run)}; optimizer {Adam.__name__} (torch {torch.__version__})",
        *_saved_late(config),
        data_table(dict(_splits(run))),
    )


def _saved_late(config: Config) -> Iterator[str]:
    """What to know before a run that saves nothing on its way."""
    given = config.checkpoint
    if given.save is not None and given.save_interval is None and not config.training.skip_train:
        yield "checkpoints: at the end, and when a signal or Ctrl-C stops it; a crash loses all (--save-interval)"


def _compiled(run: Run) -> str:
    """What the compiler does, and whether kernels are launched together."""
    given = run.config, run.layout.data_parallel_size, run.runtime.device
    return _COMPILED[compiled_unit(*given)] + (", its kernels launched together" if is_replayed(*given) else "")


def _kernel(run: Run, backend: BackendSpecProvider) -> str:
    """The attention kernel, where torch has a choice of them; dropout and documents have their own."""
    model, device = run.config.model, run.runtime.device
    told_apart = run.config.data.reset_attention_mask
    if device.type != "cuda" or told_apart or model.attention_dropout or not isinstance(backend, TorchSpecProvider):
        return ""
    heads = model.num_attention_heads // run.config.parallel.tensor_model_parallel_size
    dtype = next(run.model[0].parameters()).dtype
    return f" ({kernel_name(heads, model.hidden_size // model.num_attention_heads, model.seq_length, device, dtype)})"


def _declined(config: Config) -> str:
    """Why `auto` left an installed Transformer Engine alone, where it would have been taken."""
    if config.model.transformer_impl != "auto" or not config.half_precision or transformer_engine.version() is None:
        return ""
    reason = transformer_engine.misfit()
    return f" (Transformer Engine {reason})" if reason else ""


def _splits(run: Run) -> Iterator[tuple[str, Taken]]:
    """The samples of each split, and how many the run takes: of training in all, of the others at each evaluation."""
    data, training = run.datasets, run.config.training
    if data.train is not None and not training.skip_train:
        yield "training", Taken(data.train, samples_after(run.config, run.runtime.world_size, run.num_iterations))
    num_iters = None if training.full_validation else training.eval_iters
    sets: Mapping[str, SourcedSamples | None] = data.validation_sets or {"validation": data.validation}
    for name, samples in sets.items():
        if samples is not None:
            yield name, Taken(samples, evaluated_samples(run, samples, num_iters), again=True)
    if data.test is not None:
        yield "test", Taken(data.test, evaluated_samples(run, data.test, training.eval_iters), again=True)
