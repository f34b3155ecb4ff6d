"""The largest logit without its place.

What is wrong: `calculate_logits_max` (tensor_parallel/cross_entropy.py:30) takes `torch.max(..., dim=-1)[0]`, which
also finds where the maximum is; nobody asks. On a CPU that is the slowest part of the loss.
The mend: `torch.amax`, the same value.
Test: tests/unit/megatron/test_logits_max.py.
"""

from __future__ import annotations

from megatron.core.tensor_parallel.cross_entropy import VocabParallelCrossEntropy

from contextlm.megatron.rewrite import rewrite

_MAX = "torch.max(vocab_parallel_logits, dim=-1)[0]"
_AMAX = "torch.amax(vocab_parallel_logits, dim=-1)"


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(VocabParallelCrossEntropy.calculate_logits_max, {_MAX: (_AMAX, 1)})
