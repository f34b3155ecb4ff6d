"""The `context` section: the context head."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """The context head (docs/method.md): chunk size 0 leaves the plain backbone."""

    context_chunk_size: int = option(
        0, "Tokens pooled into one context embedding; 0 = no context head.", example=4, minimum=0
    )
    context_predictor_layers: int = option(2, "Causal layers over chunks; 0 = pooling only.", minimum=0)
    context_encoder_layers: int | None = option(
        None, "Layers of the token encoder, before the head; half of the layers if not given.", example=6, minimum=0
    )
    context_pooling: str = option(
        "mean", "How a chunk's states become one embedding.", choices=("mean", "last", "first")
    )
    context_fusion: str = option(
        "gated",
        "How the prediction reaches a token: gated h + a p, gated_channel (a per channel), add h + p, "
        "norm_add norm(h) + norm(p).",
        choices=("gated", "gated_channel", "add", "norm_add"),
    )
    context_shift: bool = option(True, "The last token of a chunk already receives the next chunk's prediction.")
    context_stop_gradient: bool = option(False, "No gradient from the predictor into the token encoder.")
    context_control: str = option(
        "none",
        "At evaluation only, replace the prediction, to see whether the context helps.",
        choices=("none", "zero", "shuffle", "random", "previous"),
    )

    @property
    def enabled(self) -> bool:
        """Whether there is a context head."""
        return self.context_chunk_size > 0
