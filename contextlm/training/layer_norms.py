"""The L2 norms of each layer's weights and gradients, over all ranks: where something that is no number sits."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

from contextlm.checkpoints.sharded_state import weights_state
from contextlm.training.setup import gathered_weights
from contextlm.training.update import counted, is_counted

if TYPE_CHECKING:
    from contextlm.training.setup import Run

_LAYER = re.compile(r"decoder\.layers\.\d+|decoder\.[^.]+|[^.]+")


def layer_norms(run: Run, own_norms: Tensor | None) -> dict[str, dict[str, float]]:
    """`weight_norm` and, where they are known, `grad_norm` of each layer by its name in a checkpoint; collective.

    Args:
        run: the run.
        own_norms: of this rank's gradients, in the order of its optimizer's; None if they are not known.
    """
    (optimizer,) = run.optimizer.chained_optimizers
    counts = counted(optimizer)
    norms = [] if own_norms is None else own_norms.tolist()
    by_owner = dict(zip(map(id, counts), norms, strict=True)) if len(norms) == len(counts) else {}
    is_first_copy = run.layout.data_rank == 0
    gradients_of_copies = isinstance(optimizer, DistributedOptimizer)  # each rank has a share of them
    found: list[tuple[str, str, float]] = []
    with gathered_weights(run):
        for name, weight in _weights(run):
            layer = _LAYER.match(name)
            assert layer is not None
            if is_first_copy and is_counted(optimizer, weight):
                found.append(
                    (layer[0], "weight_norm", torch.linalg.vector_norm(weight.detach(), dtype=torch.float32).item())
                )
            norm = by_owner.get(id(_owner(optimizer, weight)))
            if norm is not None and (is_first_copy or gradients_of_copies):
                found.append((layer[0], "grad_norm", norm))
    everyones: list[Any] = [None] * run.runtime.world_size
    torch.distributed.all_gather_object(everyones, found)
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for layer_name, kind, norm in (entry for entries in everyones for entry in entries):
        parts[layer_name][kind].append(norm)
    return {layer: {kind: math.hypot(*norms) for kind, norms in kinds.items()} for layer, kinds in parts.items()}


def _weights(run: Run) -> Iterator[tuple[str, Tensor]]:
    """This rank's weights by their names in a checkpoint."""
    state = weights_state(run.language_model, run.layout)
    for index, part in enumerate(run.language_model):
        names = {name: sharded.key for name, sharded in state[f"model{index}"].items() if hasattr(sharded, "key")}
        for name, weight in part.named_parameters():
            yield names.get(name, name), weight


def _owner(optimizer: MegatronOptimizer, weight: Tensor) -> Tensor | None:
    """What has this weight's gradient in the optimizer; None where another rank has it."""
    if not isinstance(optimizer, DistributedOptimizer):
        return getattr(weight, "main_param", weight)
    place = optimizer.model_param_group_index_map.get(weight)
    return None if place is None else optimizer.optimizer.param_groups[place[0]]["params"][place[1]]
