"""The optimizer: a fused AdamW inside megatron-core's distributed optimizer, or its plain one."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.utils import get_model_config
from torch import Tensor

from contextlm.checkpoints.optimizer_state import identity
from contextlm.config.schedule_lengths import schedule_lengths
from contextlm.config.schema import Config
from contextlm.training.schedule import learning_rate, weight_decay


def build_optimizer(config: Config, model: Sequence[DistributedDataParallel]) -> MegatronOptimizer:
    """AdamW over the parameters of this rank's stage; distributed, its state is split over data-parallel ranks.

    megatron-core puts biases and one-dimensional parameters (norms, the gate) in a group without weight decay.
    """
    settings = config.optimizer
    optimizer = get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam",
            lr=settings.lr,
            min_lr=settings.min_lr,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.adam_beta1,
            adam_beta2=settings.adam_beta2,
            adam_eps=settings.adam_eps,
            clip_grad=settings.clip_grad,
            bf16=config.training.bf16,
            fp16=config.training.fp16,
            params_dtype=get_model_config(model[0]).params_dtype,
            loss_scale=settings.loss_scale,
            initial_loss_scale=settings.initial_loss_scale,
            min_loss_scale=settings.min_loss_scale,
            loss_scale_window=settings.loss_scale_window,
            hysteresis=settings.hysteresis,
            use_distributed_optimizer=config.parallel.use_distributed_optimizer,
            overlap_param_gather=config.parallel.overlap_param_gather,
        ),
        list(model),
        use_gloo_process_groups=False,
    )
    _check(optimizer, model)
    (chained,) = optimizer.chained_optimizers
    if chained.optimizer.has_own_kernel:
        for part in model:
            part.keeps_sums = True
        chained.optimizer.weights = {master: _written(chained, owner) for master, owner in owners(chained).items()}
    return optimizer


def owners(optimizer: MegatronOptimizer) -> dict[Tensor, Tensor]:
    """The 16-bit parameters of the model, by the fp32 masters of them that this rank updates."""
    if isinstance(optimizer, DistributedOptimizer):
        masters, weights = optimizer.shard_fp32_from_float16_groups, optimizer.model_float16_groups
    else:
        masters, weights = getattr(optimizer, "fp32_from_float16_groups", []), getattr(optimizer, "float16_groups", [])
    return {m: w for ms, ws in zip(masters, weights, strict=True) for m, w in zip(ms, ws, strict=True)}


def _written(optimizer: MegatronOptimizer, owner: Tensor) -> Tensor:
    """What of a parameter this rank updates, where the model reads it."""
    if not isinstance(optimizer, DistributedOptimizer):
        return owner.detach()
    place = optimizer._get_model_param_range_map(owner)["gbuf_world_in_bucket"]
    buffer, _, bucket = optimizer.model_param_gbuf_map[owner]
    return optimizer.buffers[buffer].buckets[bucket].param_data.view(-1)[place.start : place.end]


def _check(optimizer: MegatronOptimizer, model: Sequence[DistributedDataParallel]) -> None:
    """Refuse what megatron-core would save and resume as something else, silently."""
    dtypes = {parameter.dtype for part in model for parameter in part.parameters()}
    if len(dtypes) > 1:
        raise ValueError(f"the weights have {sorted(map(str, dtypes))}: the distributed optimizer saves one type")
    identities = [identity(group) for group in optimizer.param_groups]
    if len(set(identities)) < len(identities):
        raise ValueError(f"parameter groups {identities}: two are alike, and one would resume with the other's values")


def apply_schedule(config: Config, optimizer: MegatronOptimizer, position: int) -> float:
    """Set what the update at a position of the schedules uses; returns its learning rate.

    megatron-core gives each group a `wd_mult` and leaves multiplying to its caller.
    """
    lengths = schedule_lengths(config)
    lr = learning_rate(config.optimizer, position, lengths)
    decay = weight_decay(config.optimizer, position, lengths)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = decay * group["wd_mult"]
    return lr
