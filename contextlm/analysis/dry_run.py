"""What `--dry-run` prints: the resolved configuration and what it costs, from formulas alone.

`tools/plan.py` says more: time, money, layouts that fit. Read next: `plan_blocks.py`.
"""

from __future__ import annotations

from contextlm.analysis.plan_blocks import (
    flops_block,
    layout_block,
    memory_block,
    parameters_block,
    pipeline_block,
    recompute_block,
)
from contextlm.config.schema import Config
from contextlm.config.yaml_file import dump


def describe(config: Config, world_size: int | None = None, vocab_size: int | None = None) -> str:
    """One screen of plain text.

    Args:
        world_size: number of processes; None takes the smallest that the layout needs.
        vocab_size: the tokenizer's; None takes the configuration's.
    """
    blocks = [
        costs(config, world_size, vocab_size),
        "Configuration\n" + _indent(dump(config, compact=True)),
        "Nothing was started.",
    ]
    return "\n\n".join(blocks)


def costs(config: Config, world_size: int | None = None, vocab_size: int | None = None) -> str:
    """All that is known without a GPU's speed; the arguments are those of `describe`."""
    ranks = world_size or config.parallel.model_parallel_size
    vocabulary = vocab_size or config.model.vocab_size
    blocks = [
        parameters_block(config, vocabulary),
        flops_block(config, vocabulary or 0),
        layout_block(config, ranks),
        pipeline_block(config, vocabulary or 0, ranks),
        memory_block(config, vocabulary or 0, ranks),
        recompute_block(config, vocabulary or 0, ranks),
    ]
    return "\n\n".join(filter(None, blocks))


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
