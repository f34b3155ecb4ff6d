"""Parity with Hugging Face under any layout: whole weights in, whole logits out. Runs on every rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from contextlm.config.schema import Config
from contextlm.parallel.layout import Layout
from tests.small_configs import VOCAB_SIZE


def parity_logits(layout: Layout, config: Config, weights: Mapping[str, Tensor], ids_BS: Tensor) -> Tensor:
    """Logits [B, S, VOCAB_SIZE] of the model that `weights` make, on every rank.

    Args:
        layout: this process's groups, one pipeline stage.
        config: sizes and `tensor_model_parallel_size` of the layout.
        weights: whole tensors by checkpoint key, the vocabulary unpadded.
        ids_BS: token ids, the same on every rank.
    """
    from contextlm.model.builder import build_model

    (model,) = build_model(config, VOCAB_SIZE, layout.groups)
    model.eval()
    load_whole(model, weights)
    positions_BS = torch.arange(ids_BS.shape[1]).expand_as(ids_BS)
    with torch.no_grad():
        logits = model(ids_BS, positions_BS, None)
    if layout.groups.tp.size() > 1:
        parts = [torch.empty_like(logits) for _ in range(layout.groups.tp.size())]
        torch.distributed.all_gather(parts, logits, group=layout.groups.tp)
        logits = torch.cat(parts, dim=-1)
    return logits[..., :VOCAB_SIZE]


def load_whole(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Give this rank's part of a model its slices of whole tensors, as a checkpoint would.

    Every weight of the model must be in `weights`; rows of padding become 0.
    """
    parts = model.sharded_state_dict(metadata={"non_homogeneous_layers": True})
    local = {}
    for name, part in parts.items():
        whole = torch.zeros(part.global_shape)
        given = weights[part.key]
        whole[: given.shape[0]] = given
        for dimension, (start, length) in enumerate(zip(part.global_offset, part.local_shape, strict=True)):
            whole = whole.narrow(dimension, start, length)
        local[name] = whole
    absent = model.load_state_dict(local, strict=False).missing_keys
    assert all(name.endswith("_extra_state") for name in absent), absent


def parity_difference(backbone: str, tensor_model_parallel_size: int) -> float:
    """How far a layout's logits are from Hugging Face's, as a share of the largest logit."""
    from contextlm.parallel import runtime
    from contextlm.parallel.layout import model_parallel
    from tests.unit.model.test_parity import difference, peer, plain

    config = plain(backbone, tensor_model_parallel_size=tensor_model_parallel_size)
    with runtime.start(config.parallel), model_parallel(config.parallel) as layout:
        from contextlm.parallel.seeds import seed_weights

        seed_weights(config.training.seed, layout)
        return difference(layout, peer(backbone), config, backbone)
