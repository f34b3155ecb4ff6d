"""What a checkpoint holds of the model, as megatron-core's torch_dist format wants it described.

By key: the backbone's weights as `embedding.`, `decoder.`, `output_layer.`; the head's as `context_head.`; the
optimizer's state (`optimizer_state.py`) as `optimizer.state.<kind>.<weight>`; generators (`rng_state.py`) as `rng.`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.transformer.module import MegatronModule

from contextlm.parallel.layout import Layout

# How the tensors are laid out on disk: layers one by one (one of them may carry the head) and the optimizer's
# state in the shape of the weights, so that any layout can read it.
CONTENT = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "non_homogeneous_layers": True,
    "chained_optim_avoid_prefix": True,
    "singleton_local_shards": False,
}


def weights_state(parts: Sequence[MegatronModule], layout: Layout) -> ShardedStateDict:
    """The weights of this rank's stage, `model0` and on by part, described for megatron-core."""
    return {f"model{index}": part.sharded_state_dict(metadata=metadata(layout)) for index, part in enumerate(parts)}


def metadata(layout: Layout) -> dict[str, Any]:
    """What `sharded_state_dict` must know; the group is not for the disk."""
    return CONTENT | {"dp_cp_group": layout.groups.dp_cp}
