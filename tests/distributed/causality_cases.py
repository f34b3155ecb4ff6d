"""What the ranks of a causality test do, on CPU and CUDA; run by the pool."""

from __future__ import annotations

from typing import Any

import torch

from tests.distributed.runs import small_run
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE


def logits_of(run: Any, tokens_BS: torch.Tensor) -> torch.Tensor:
    """Logits [B, S, V] in evaluation mode."""
    positions = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
    with torch.no_grad():
        return run.model[0].eval()(tokens_BS, positions, None)[..., :VOCAB_SIZE].float()


def random_tokens(run: Any, batch: int, length: int) -> torch.Tensor:
    """Token ids [batch, length], the same each time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB_SIZE, (batch, length), generator=generator).to(run.runtime.device)


def leaks(backbone: str, values: dict[str, Any], off_by_one: bool = False) -> list[int]:
    """Positions whose change reaches a logit before them, over every phase of a chunk.

    Args:
        backbone: which one.
        values: of the configuration.
        off_by_one: sabotage: each token receives the prediction of the chunk after its own.
    """
    from contextlm.model import context_head

    aligned = context_head.spread
    if off_by_one:
        context_head.spread = lambda prediction, *rest: aligned(prediction.roll(-1, dims=0), *rest)
    try:
        return _leaks(backbone, values)
    finally:
        context_head.spread = aligned


def _leaks(backbone: str, values: dict[str, Any]) -> list[int]:
    with small_run(backbone, **values) as run:
        randomize(run.language_model[0])
        tokens = random_tokens(run, 2, run.config.model.seq_length)
        before = logits_of(run, tokens)
        found = []
        for s in range(1, tokens.shape[1]):
            changed = tokens.clone()
            changed[:, s:] = (changed[:, s:] + 1) % VOCAB_SIZE
            after = logits_of(run, changed)
            assert not torch.equal(after[:, s:], before[:, s:])
            if not torch.equal(after[:, :s], before[:, :s]):
                found.append(s)
        return found
