"""Recompute groups of layers whose number does not divide the stage's.

What is wrong: `TransformerBlock._checkpointed_forward` (transformer/transformer_block.py:539) takes
`recompute_num_layers` layers for every group of the method `uniform`, also where fewer are left: IndexError.
The mend: the last group ends with the last layer.
Test: tests/unit/model/test_recompute.py.
"""

from __future__ import annotations

from megatron.core.transformer.transformer_block import TransformerBlock

from contextlm.megatron.rewrite import rewrite

_GROUP = "custom(layer_idx, layer_idx + self.config.recompute_num_layers)"
_CUT = "custom(layer_idx, min(layer_idx + self.config.recompute_num_layers, self.num_layers_per_pipeline_rank))"


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(TransformerBlock._checkpointed_forward, {_GROUP: (_CUT, 1)})
