"""What a plan is told in: blocks of plain text, of parameters, FLOPs, layout, memory and the pipeline.

Read next: `parameters.py`, `flops.py`, `memory.py`, `stage_work.py`.
"""

from __future__ import annotations

from contextlm.analysis.execution import COMPILED, execution
from contextlm.analysis.flops import forward_flops_per_token, training_flops_per_token
from contextlm.analysis.memory import RankMemory, rank_memory
from contextlm.analysis.parameters import count_parameters
from contextlm.analysis.recompute_choices import compare_choices, recompute_flags
from contextlm.analysis.stage_work import balance, stage_work
from contextlm.config.batch_ramp import num_iterations, samples_after
from contextlm.config.layout_words import layout_words
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

_GIB = 2**30


def parameters_block(config: Config, vocabulary: int | None) -> str:
    """By part, in the order of the forward pass."""
    counts = count_parameters(config, vocabulary or 0)
    lines = [f"  {name.replace('_', ' '):<14}{count:>16,}" for name, count in counts._asdict().items()]
    lines.append(f"  {'total':<14}{counts.total:>16,}")
    if vocabulary is None:
        note = "vocabulary unknown: nothing below counts it; give a tokenizer or --vocab-size"
    else:
        tensor = config.parallel.tensor_model_parallel_size
        padded = config.model.padded_vocab_size(vocabulary, tensor)
        note = f"vocabulary {vocabulary}, padded to {padded} in memory"
    plain = counts.total - counts.context_head
    if counts.context_head:
        lines.append(f"  the head adds {counts.context_head / plain:.1%} to the plain model")
    return "\n".join([f"Parameters ({note})", *lines])


def flops_block(config: Config, vocabulary: int) -> str:
    """Of a token, forward and in training."""
    full = training_flops_per_token(config, vocabulary)
    half = training_flops_per_token(config, vocabulary, causal_half=True)
    forward = forward_flops_per_token(config, vocabulary)
    return (
        f"GFLOP per token\n"
        f"  forward {forward / 1e9:.4g}, training {full / 1e9:.4g}; attention counted in full\n"
        f"  training {half / 1e9:.4g} as Megatron-LM counts, with the causal half of attention"
    )


def layout_block(config: Config, world_size: int) -> str:
    """What a step reads, and what each stage holds."""
    copies = config.data_parallel_size(world_size)
    batch, passes = config.global_batch_size(world_size), config.num_microbatches(world_size)
    lines = [
        f"Layout on {count(world_size, 'process', 'processes')}: {layout_words(config, world_size)}",
        f"  a step: {count(batch, 'sample')} = {config.training.micro_batch_size} per micro-batch x "
        f"{copies} "
        f"data-parallel x {count(passes, 'micro-batch', 'micro-batches')}; "
        f"{batch * config.model.seq_length:,} tokens",
    ]
    if iterations := num_iterations(config, world_size):
        samples = samples_after(config, world_size, iterations)
        lines.append(
            f"  the run: {iterations:,} iterations, {samples:,} samples, {samples * config.model.seq_length:,} tokens"
        )
    if ramp := config.training.rampup_batch_size:
        lines.append(f"  at first {ramp[0]} samples, {ramp[1]} more at a time until {ramp[2]} are consumed")
    stages = range(config.parallel.pipeline_model_parallel_size)
    lines += [f"  stage {stage}: {_stage(config, stage)}" for stage in stages]
    return "\n".join(lines)


def _stage(config: Config, stage: int) -> str:
    chunks = stage_parts(config, stage)
    layers = " and ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in chunks)
    parts = ["embedding"] if stage == 0 else []
    parts.append(f"{'layer' if sum(map(len, chunks)) == 1 else 'layers'} {layers}")
    if config.context.enabled and any(config.encoder_layers in part for part in chunks):
        parts.append(f"the context head before layer {config.encoder_layers}")
    if stage == config.parallel.pipeline_model_parallel_size - 1:
        parts.append("final norm and output layer")
    return ", ".join(parts)


def memory_block(config: Config, vocabulary: int, world_size: int) -> str:
    """Of a rank of each stage, by kind."""
    compiled = COMPILED[execution(config, world_size, on_cuda=True).compiled]
    lines = [f"Memory per rank in GiB, at its peak, on GPUs with {compiled} (--compile {config.training.compile})"]
    columns = (*RankMemory._fields, "total")
    lines.append(f"  {'stage':<8}" + "".join(f"{column:>13}" for column in columns))
    for stage in range(config.parallel.pipeline_model_parallel_size):
        memory = rank_memory(config, vocabulary, stage, world_size)
        sizes = "".join(f"{size / _GIB:>13.3f}" for size in (*memory, memory.total))
        lines.append(f"  {stage:<8}{sizes}")
    return "\n".join(lines)


def recompute_block(config: Config, vocabulary: int, world_size: int) -> str:
    """The choices side by side, whichever the configuration makes."""
    lines = ["Computed again in the backward pass: GiB of the fullest stage, and the operations added"]
    lines.append(f"  {'':<18}{'activations':>13}{'logits':>9}{'total':>9}{'more work':>11}  compiled")
    for choice in compare_choices(config, vocabulary, world_size):
        memory = choice.memory
        sizes = f"{memory.activations / _GIB:>13.3f}{memory.logits / _GIB:>9.3f}{memory.total / _GIB:>9.3f}"
        flags = " ".join(recompute_flags(choice.config))
        lines.append(f"  {choice.name:<18}{sizes}{choice.more_work:>11.1%}  {choice.compiled:<8}  {flags}".rstrip())
    return "\n".join(lines)


def pipeline_block(config: Config, vocabulary: int, world_size: int) -> str:
    """How evenly the work is divided, and how long stages wait; empty without a pipeline."""
    stages, passes = config.parallel.pipeline_model_parallel_size, config.num_microbatches(world_size)
    if stages == 1:
        return ""
    works = stage_work(config, vocabulary)
    mean = sum(work.training for work in works) / stages
    lines = [f"Pipeline of {stages} stages, {count(passes, 'micro-batch', 'micro-batches')} a step"]
    lines.append(f"  {'stage':<8}{'work':>6}  of the average stage's")
    for stage, work in enumerate(works):
        held = {"the context head": work.head, "the output layer": work.output}
        words = [f"{name} {3 * part / work.training:.0%} of it" for name, part in held.items() if part]
        lines.append(f"  {stage:<8}{work.training / mean:>6.2f}  {', '.join(words)}".rstrip())
    times = [work.training for work in works]
    shares = balance(times, passes, config.num_model_chunks)
    lines.append(
        f"  a step is {shares.work:.1%} work, {shares.waiting_for_slowest:.1%} waiting for stage "
        f"{times.index(max(times))}, {shares.bubble:.1%} bubble"
    )
    return "\n".join(lines)


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"
