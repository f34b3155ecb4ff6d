"""The optimizer: a fused AdamW inside megatron-core's distributed optimizer, or its plain one."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.utils import get_model_config

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
    return optimizer


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
