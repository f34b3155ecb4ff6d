"""What `--dry-run` prints: the resolved configuration and what it costs, from formulas alone.

Read next: `parameters.py`, `flops.py`, `memory.py`.
"""

from __future__ import annotations

from contextlm.analysis.flops import forward_flops_per_token, training_flops_per_token
from contextlm.analysis.memory import RankMemory, rank_memory
from contextlm.analysis.parameters import count_parameters
from contextlm.config.batch_ramp import num_iterations, samples_after
from contextlm.config.layout_words import layout_words
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config
from contextlm.config.yaml_file import dump

_GIB = 2**30


def describe(config: Config, world_size: int | None = None, vocab_size: int | None = None) -> str:
    """One screen of plain text.

    Args:
        world_size: number of processes; None takes the smallest that the layout needs.
        vocab_size: the tokenizer's; None takes the configuration's.
    """
    ranks = world_size or config.parallel.model_parallel_size
    vocabulary = vocab_size or config.model.vocab_size
    blocks = [
        _parameters(config, vocabulary),
        _flops(config, vocabulary or 0),
        _layout(config, ranks),
        _memory(config, vocabulary or 0, ranks),
        "Configuration\n" + _indent(dump(config, compact=True)),
        "Nothing was started.",
    ]
    return "\n\n".join(blocks)


def _parameters(config: Config, vocabulary: int | None) -> str:
    counts = count_parameters(config, vocabulary or 0)
    lines = [f"  {name.replace('_', ' '):<14}{count:>16,}" for name, count in counts._asdict().items()]
    lines.append(f"  {'total':<14}{counts.total:>16,}")
    if vocabulary is None:
        note = "vocabulary unknown: nothing below counts it; give --vocab-size"
    else:
        tensor = config.parallel.tensor_model_parallel_size
        padded = config.model.padded_vocab_size(vocabulary, tensor)
        note = f"vocabulary {vocabulary}, padded to {padded} in memory"
    plain = counts.total - counts.context_head
    if counts.context_head:
        lines.append(f"  the head adds {counts.context_head / plain:.1%} to the plain model")
    return "\n".join([f"Parameters ({note})", *lines])


def _flops(config: Config, vocabulary: int) -> str:
    full = training_flops_per_token(config, vocabulary)
    half = training_flops_per_token(config, vocabulary, causal_half=True)
    forward = forward_flops_per_token(config, vocabulary)
    return (
        f"GFLOP per token\n"
        f"  forward {forward / 1e9:.4g}, training {full / 1e9:.4g}; attention counted in full\n"
        f"  training {half / 1e9:.4g} as Megatron-LM counts, with the causal half of attention"
    )


def _layout(config: Config, world_size: int) -> str:
    copies = config.data_parallel_size(world_size)
    batch, passes = config.global_batch_size(world_size), config.num_microbatches(world_size)
    lines = [
        f"Layout on {_count(world_size, 'process', 'processes')}: {layout_words(config, world_size)}",
        f"  a step: {_count(batch, 'sample')} = {config.training.micro_batch_size} per micro-batch x "
        f"{copies} "
        f"data-parallel x {_count(passes, 'micro-batch', 'micro-batches')}; "
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


def _memory(config: Config, vocabulary: int, world_size: int) -> str:
    lines = ["Memory per rank in GiB, activations at their peak"]
    columns = (*RankMemory._fields, "total")
    lines.append(f"  {'stage':<8}" + "".join(f"{column:>13}" for column in columns))
    for stage in range(config.parallel.pipeline_model_parallel_size):
        memory = rank_memory(config, vocabulary, stage, world_size)
        sizes = "".join(f"{size / _GIB:>13.3f}" for size in (*memory, memory.total))
        lines.append(f"  {stage:<8}{sizes}")
    return "\n".join(lines)


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
