"""The optimizer: megatron-core's distributed optimizer around a fused AdamW."""

from __future__ import annotations

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig

from contextlm.config.schema import Config
from contextlm.training.schedule import learning_rate


def build_optimizer(config: Config, model: DistributedDataParallel) -> MegatronOptimizer:
    """AdamW over the parameters of this rank's stage, its state split over the data-parallel ranks.

    megatron-core puts biases and one-dimensional parameters (norms, the gate) in a group without weight decay.
    """
    settings = config.optimizer
    return get_megatron_optimizer(
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
            params_dtype=torch.bfloat16 if config.training.bf16 else torch.float32,
            use_distributed_optimizer=config.parallel.use_distributed_optimizer,
        ),
        [model],
        use_gloo_process_groups=False,
    )


def apply_schedule(config: Config, optimizer: MegatronOptimizer, iteration: int) -> float:
    """Set what the update of `iteration` uses; returns its learning rate.

    megatron-core gives each group a `wd_mult` and leaves multiplying to its caller.
    """
    lr = learning_rate(config.optimizer, iteration, config.lr_decay_iters)
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = config.optimizer.weight_decay * group["wd_mult"]
    return lr
