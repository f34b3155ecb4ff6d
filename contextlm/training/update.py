"""One update of the weights from the gradients that are there, or none: what megatron-core's `step` does, and a choice.

Its steps are megatron-core's own, in its order: gradients to the master weights, norm, clip, AdamW, masters to weights.
Between norm and clip the device decides whether AdamW leaves out this one. On CUDA one kernel does the last three, and
divides by the number of tokens besides: gradients there are sums over tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared
from torch import Tensor

from contextlm.megatron import grad_norm

if TYPE_CHECKING:
    from contextlm.training.setup import Run


class Update(NamedTuple):
    """What became of it, on the device.

    Attributes:
        skipped: a code of `skipping.Why`, int64 scalar; 0 if it updated.
        grad_norm: of the whole model before the clip, fp64 scalar; None where fp16 gradients overflow.
        own_norms: of this rank's gradients, in the order of the optimizer's, fp32.
    """

    skipped: Tensor
    grad_norm: Tensor | None
    own_norms: Tensor | None


@torch.no_grad()
def update(run: Run, loss: Tensor) -> Update:
    """Update the weights of this rank's stage; collective.

    Args:
        run: the run, whose gradient buffers are filled.
        loss: of the global batch, fp64 scalar; 0 on ranks that do not compute it.
    """
    (optimizer,) = run.optimizer.chained_optimizers
    adamw, max_norm = optimizer.optimizer, run.config.optimizer.clip_grad
    if not adamw.owners and optimizer.prepare_grads():  # fp16: asked on the host, which sets the loss scale
        return Update(run.skipping.overflow, None, None)
    gradients = [adamw.gradient(parameter) for parameter in counted(optimizer)]
    norm, own_norms = grad_norm.total(gradients, optimizer.get_grad_stats_parallel_group())
    if adamw.has_own_kernel:
        factor = run.model[0].gradient_factor
        norm, own_norms = norm * factor, own_norms * factor
    skipped = run.skipping.why(run.progress.iteration + 1, loss, norm)
    adamw.found_inf = (skipped > 0).float()
    if adamw.has_own_kernel:
        adamw.gradient_scale = factor * grad_norm.clip_factor(max_norm, norm) if max_norm > 0 else factor
    elif max_norm > 0:
        grad_norm.clip(optimizer.get_parameters(), max_norm, norm)
    if adamw.weights:
        adamw.step()
        _gather_weights(optimizer)
    else:
        optimizer.step_with_ready_grads()
    return Update(skipped, norm, own_norms)


def counted(optimizer: MegatronOptimizer) -> list[Tensor]:
    """What this rank updates and has gradients of, without copies of what another rank of the model has."""
    own = optimizer.optimizer
    return [p for p in optimizer.get_parameters() if own.gradient(p) is not None and is_counted(optimizer, p)]


def is_counted(optimizer: MegatronOptimizer, weight: Tensor) -> bool:
    """Whether it is not a copy of what another rank of the model has, as for the gradient norm."""
    group = getattr(optimizer, "tp_group", None)
    return param_is_not_shared(weight) and param_is_not_tensor_parallel_duplicate(weight, group)


def _gather_weights(optimizer: MegatronOptimizer) -> None:
    """Have the distributed optimizer's ranks give each other what they updated, unless that is overlapped."""
    if isinstance(optimizer, DistributedOptimizer) and not optimizer.ddp_config.overlap_param_gather:
        for part in optimizer.model_chunks:
            part.start_param_sync()
