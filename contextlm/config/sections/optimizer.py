"""The `optimizer` section: AdamW, learning rate, weight decay, loss scale."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float = option(6e-4, "Peak learning rate.", above=0)
    min_lr: float = option(0.0, "Learning rate at the end of the decay.", example=6e-5, minimum=0)
    lr_decay_style: str = option(
        "cosine",
        "Shape of the decay; WSD stays at --lr until the last --lr-wsd-decay-iters.",
        choices=("cosine", "linear", "constant", "inverse-square-root", "WSD"),
    )
    lr_decay_iters: int | None = option(
        None, "Iterations until --min-lr; --train-iters if not given.", example=1000, minimum=1
    )
    lr_decay_samples: int | None = option(
        None, "Samples until --min-lr, with --train-samples, which it is if not given.", example=100000, minimum=1
    )
    lr_wsd_decay_iters: int | None = option(None, "Iterations of WSD's decay, the last ones.", example=100, minimum=1)
    lr_wsd_decay_samples: int | None = option(
        None, "Samples of WSD's decay, the last ones, with --train-samples.", example=10000, minimum=1
    )
    lr_wsd_decay_style: str = option(
        "exponential", "Shape of WSD's decay.", choices=("exponential", "linear", "cosine", "minus_sqrt")
    )
    lr_warmup_iters: int = option(0, "Iterations of linear warm-up from 0.", example=100, minimum=0)
    lr_warmup_samples: int = option(
        0, "Samples of linear warm-up from 0, with --train-samples.", example=10000, minimum=0
    )
    lr_warmup_fraction: float | None = option(
        None, "Share of the decay's length that is warm-up, in place of its length.", example=0.1, minimum=0, maximum=1
    )
    weight_decay: float = option(0.1, "AdamW weight decay; never on biases, norms and the gate.", minimum=0)
    weight_decay_incr_style: str = option(
        "constant",
        "How weight decay goes from --start-weight-decay to --end-weight-decay over the run.",
        choices=("constant", "linear", "cosine"),
    )
    start_weight_decay: float | None = option(
        None, "Weight decay at the start, where it is not constant.", example=0.01, minimum=0
    )
    end_weight_decay: float | None = option(
        None, "Weight decay at the end, where it is not constant.", example=0.1, minimum=0
    )
    adam_beta1: float = option(0.9, "AdamW beta 1.", minimum=0, maximum=0.999999)
    adam_beta2: float = option(0.95, "AdamW beta 2.", minimum=0, maximum=0.999999)
    adam_eps: float = option(1e-8, "AdamW epsilon.", above=0)
    clip_grad: float = option(1.0, "Global gradient norm above which gradients are scaled down; 0 = off.", minimum=0)
    loss_scale: float | None = option(
        None, "Constant loss scale of fp16; it adapts itself if not given.", example=65536.0, above=0
    )
    initial_loss_scale: float = option(
        2.0**32, "Loss scale of the first fp16 iteration; halved until it fits.", above=0
    )
    min_loss_scale: float = option(1.0, "Least loss scale of fp16.", above=0)
    loss_scale_window: int = option(
        1000, "fp16 iterations without an overflow after which the scale doubles.", minimum=1
    )
    hysteresis: int = option(2, "fp16 overflows, in a row or not, before the scale is halved.", minimum=1)
