"""The peer: a GPT-2 in plain PyTorch, as one would write it who wants it short and fast; `plain_neox.py` is Pythia's.

Its weights are megatron-core's under other names (`copy_weights`), so that both trainers can be seen to do the same
work. Shapes: B samples, S tokens, H hidden, N heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.projection = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    @staticmethod
    def apart(x_BSF: Tensor, layer: nn.Linear) -> Tensor:
        """`layer(x_BSF)`; compiled, its bias is added by the kernel of the residual: a product takes longer for it."""
        return F.linear(x_BSF, layer.weight) + layer.bias if torch.compiler.is_compiling() else layer(x_BSF)

    def by_head(self, x_BSH: Tensor) -> Tensor:
        """Queries, keys and values of the normed states, [3, B, N, S, D]."""
        return self.qkv(self.norm1(x_BSH)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x_BSH: Tensor) -> Tensor:
        """Token states in and out, [B, S, H]."""
        q_BNSD, k_BNSD, v_BNSD = self.by_head(x_BSH)
        attended_BNSD = F.scaled_dot_product_attention(q_BNSD, k_BNSD, v_BNSD, is_causal=True)
        x_BSH = x_BSH + self.apart(attended_BNSD.transpose(1, 2).flatten(2), self.projection)
        return x_BSH + self.apart(F.gelu(self.up(self.norm2(x_BSH)), approximate="tanh"), self.down)


class PlainGPT(nn.Module):
    """GPT-2 with tied embeddings; `vocabulary` is the number of rows, padding included."""

    def __init__(self, layers: int, hidden: int, heads: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(length, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("projection.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def logits(self, inputs_BS: Tensor) -> Tensor:
        """Of every token, [B, S, V]."""
        x_BSH = self.tokens(inputs_BS) + self.positions.weight[: inputs_BS.shape[1]]
        for block in self.blocks:
            x_BSH = block(x_BSH)
        return F.linear(self.norm(x_BSH), self.tokens.weight)

    def forward(self, inputs_BS: Tensor, labels_BS: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(self.logits(inputs_BS).flatten(0, 1), labels_BS.flatten())


_NAMES = {
    "norm1": "input_layernorm",
    "qkv": "self_attention.linear_qkv",
    "projection": "self_attention.linear_proj",
    "norm2": "pre_mlp_layernorm",
    "up": "mlp.linear_fc1",
    "down": "mlp.linear_fc2",
}


_OUTER_NAMES = {
    "tokens.weight": "embedding.word_embeddings.weight",
    "positions.weight": "embedding.position_embeddings.weight",
    "norm.weight": "decoder.final_layernorm.weight",
    "norm.bias": "decoder.final_layernorm.bias",
    "output.weight": "output_layer.weight",
}


def copy_weights(model: Any, theirs: Mapping[str, Tensor]) -> None:
    """Give a peer the weights of megatron-core's GPT, which orders queries, keys and values head by head."""
    wanted = model.state_dict()
    state = {ours: theirs[name] for ours, name in _OUTER_NAMES.items() if ours in wanted}
    for number, block in enumerate(model.blocks):
        for ours, name in _NAMES.items():
            for kind in ("weight", "bias"):
                value = theirs[f"decoder.layers.{number}.{name}.{kind}"]
                if ours == "qkv":
                    value = value.unflatten(0, (block.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
                state[f"blocks.{number}.{ours}.{kind}"] = value
    model.load_state_dict(state)
