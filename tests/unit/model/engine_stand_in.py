"""A stand-in for Transformer Engine, which only a machine with CUDA can have: its classes' names, parameters and
arguments, those of release 2.9, computing on torch in one process.

What megatron-core makes of them, the wrappers and their checkpoints, is real. It must be installed before
megatron-core is imported, so it takes a process of its own (`engine_case.py`).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

RELEASE = "2.9.0"


class _Module(torch.nn.Module):
    """Every one has an extra state, empty without fp8."""

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Tensor | None) -> None:
        pass


class Linear(_Module):
    """Weight [outputs, inputs] of this rank, and a bias that may be left to the caller to add."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init_method: Callable[[Tensor], Any],
        bias: bool,
        return_bias: bool,
        parallel_mode: str,
        params_dtype: torch.dtype,
        tp_size: int,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.use_bias = in_features, out_features, bias
        self.return_bias, self.parallel_mode = return_bias, parallel_mode
        rows = out_features // tp_size if parallel_mode == "column" else out_features
        columns = in_features // tp_size if parallel_mode == "row" else in_features
        self.weight = torch.nn.Parameter(torch.empty(rows, columns, dtype=params_dtype))
        self.bias = torch.nn.Parameter(torch.zeros(rows, dtype=params_dtype))
        init_method(self.weight)

    def forward(self, hidden: Tensor, is_first_microbatch: bool | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """[S, B, inputs] to [S, B, outputs]."""
        if self.return_bias:
            return functional.linear(hidden, self.weight), self.bias
        return functional.linear(hidden, self.weight, self.bias)


class LayerNormLinear(Linear):
    """A LayerNorm in front, with parameters of its own names."""

    def __init__(self, in_features: int, out_features: int, *, eps: float, params_dtype: torch.dtype, **options: Any):
        super().__init__(in_features, out_features, params_dtype=params_dtype, **options)
        self.eps = eps
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(in_features, dtype=params_dtype))
        self.layer_norm_bias = torch.nn.Parameter(torch.zeros(in_features, dtype=params_dtype))

    def forward(self, hidden: Tensor, is_first_microbatch: bool | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """[S, B, inputs] to [S, B, outputs]."""
        normed = functional.layer_norm(
            hidden, (self.in_features,), self.layer_norm_weight, self.layer_norm_bias, self.eps
        )
        return super().forward(normed, is_first_microbatch)


class LayerNorm(torch.nn.LayerNorm):
    """Weight and bias; unlike the others of release 2.9 it is an operation, with an empty extra state."""

    def __init__(self, hidden_size: int, eps: float, params_dtype: torch.dtype, **unused: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=params_dtype)

    get_extra_state, set_extra_state = _Module.get_extra_state, _Module.set_extra_state


class DotProductAttention(_Module):
    """Causal attention over [S, B, heads, head dimension]."""

    def __init__(self, num_attention_heads: int, kv_channels: int, attn_mask_type: str, **unused: Any) -> None:
        super().__init__()
        assert attn_mask_type == "causal"

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **unused: Any) -> Tensor:
        """[S, B, heads x head dimension]."""
        q, k, v = (each.permute(1, 2, 0, 3) for each in (query, key, value))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attended.permute(2, 0, 1, 3).flatten(start_dim=2)


def install() -> None:
    """Make `import transformer_engine` find the stand-in; what it lacks is not there to import from."""
    unused = types.SimpleNamespace  # what megatron-core derives from, names in a signature or imports, for other models
    modules: dict[str, dict[str, Any]] = {
        "transformer_engine.pytorch.fp8": {"FP8GlobalStateManager": object, "fp8_autocast": object},
        "transformer_engine.pytorch.router": dict.fromkeys(
            ("fused_compute_score_for_moe_aux_loss", "fused_moe_aux_loss", "fused_topk_with_score_function")
        ),
        "transformer_engine.pytorch.tensor": {"QuantizedTensor": type("QuantizedTensor", (), {})},
        "transformer_engine.pytorch": {
            **{each.__name__: each for each in (Linear, LayerNormLinear, LayerNorm, DotProductAttention)},
            "GroupedLinear": type("GroupedLinear", (_Module,), {}),
            "distributed": unused(CudaRNGStatesTracker=object),
            "ops": unused(Sequential=object, FusibleOperation=object),
        },
        "transformer_engine": {"__version__": RELEASE, "common": unused(recipe=unused(DelayedScaling=object))},
    }
    for name, contents in modules.items():
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        vars(sys.modules[name]).update(contents)
    vars(sys.modules["transformer_engine"])["pytorch"] = sys.modules["transformer_engine.pytorch"]
