"""The context head: pool W tokens, predict the next context, fuse the prediction into the tokens.

Token t receives p[j], j = (t + 1) // W - 1, or t // W - 1 without the shift, and zero where j < 0. p[k] has read chunks
0..k, whose last token is (k + 1) W - 1 <= t: causal. Tokens are counted row by row, without padding.

This file also travels in exported folders: it imports nothing but torch and the files beside it.

Shapes: B rows, T columns of this call, R rows that finish a chunk in this call, N chunks that they finish at most,
H hidden, W tokens a chunk.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from .cache_contextlm import ContextCache, Places
from .configuration_contextlm import ContextLMConfig
from .layers_contextlm import ContextLMLayer, rotation


class ContextPredictor(nn.Module):
    """Causal layers over chunks, and a final norm unless the fusion is `add`."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(ContextLMLayer(config) for _ in range(config.context_predictor_layers))
        has_norm = config.context_fusion != "add"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None

    def forward(self, context_RNH: Tensor, rows: Tensor, first: Tensor, cache: ContextCache | None) -> Tensor:
        """Chunks in, predictions of each one's next chunk out, [R, N, H].

        Args:
            context_RNH: pooled chunks.
            rows: which rows of the batch they are of, [R].
            first: number of each row's first chunk here, [R].
            cache: of the chunks before.
        """
        count, device = context_RNH.shape[1], context_RNH.device
        alike = bool((first == first[0]).all())
        numbers_RN = ((first[:1] if alike else first)[:, None] + torch.arange(count)).to(device)
        by = rotation(self.config, numbers_RN * self.config.context_chunk_size, context_RNH.dtype)
        mask = None
        if not alike or (count > 1 and int(first[0]) > 0):
            num_chunks = int(first.max()) + count
            mask = torch.arange(num_chunks, device=device) <= numbers_RN[:, None, :, None]
        hidden = context_RNH
        for index, layer in enumerate(self.layers):
            store = None
            if cache is not None:
                store = functools.partial(cache.update_predictor, layer=index, rows=rows, first=first)
            hidden = layer(hidden, mask, by, store)
        return hidden if self.norm is None else self.norm(hidden)


class ContextHead(nn.Module):
    """h -> fuse(h, the prediction for each token's chunk)."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = ContextPredictor(config)
        if config.context_fusion in ("gated", "gated_channel"):
            self.gate = nn.Parameter(torch.zeros(1 if config.context_fusion == "gated" else config.hidden_size))
        if config.context_fusion == "norm_add":
            self.token_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_BTH: Tensor, places: Places, cache: ContextCache | None) -> Tensor:
        """Token states in, guided token states out, [B, T, H]."""
        width = self.config.context_chunk_size
        if cache is not None:
            cache.write_states(hidden_BTH, places)
        first, end = places.before // width, places.after // width  # chunks of each row before and after this call
        rows = (end > first).nonzero()[:, 0]  # the rows that finish one here: the predictor runs for them alone
        count = int((end - first).max())
        predictions = None
        if len(rows) > 0:
            if cache is None:  # every row begins here; a shorter row's further chunks are read by none of its tokens
                rows = torch.arange(len(first))
            first = first[rows]
            tokens = self._tokens(hidden_BTH, places, cache, rows, first, count)
            predictions = self.predictor(self._pool(tokens), rows, first, cache)
            if cache is not None:
                cache.write_chunks(cache.predictions, predictions, rows, first)
        if cache is not None:
            predictions = cache.predictions.data
        return self._fuse(hidden_BTH, self._guidance(hidden_BTH, predictions, places))

    def _tokens(
        self,
        hidden_BTH: Tensor,
        places: Places,
        cache: ContextCache | None,
        rows: Tensor,
        first: Tensor,
        count: int,
    ) -> Tensor:
        """States of the tokens of `count` chunks of each of the rows, [R, count, W, H]."""
        width, device = self.config.context_chunk_size, hidden_BTH.device
        if cache is None:
            tokens = hidden_BTH
            if places.real_BT is not None:  # real tokens to the front, in their order
                order_BT = places.real_BT.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
                tokens = hidden_BTH.gather(1, order_BT[..., None].expand_as(hidden_BTH))
            tokens = tokens[:, : count * width]
        elif places.alike:
            begin = int(first[0]) * width
            tokens = cache.states.held[:, begin : begin + count * width]
        else:
            numbers = first[:, None] * width + torch.arange(count * width)
            numbers = numbers.clamp(max=cache.states.held.shape[1] - 1).to(device)
            tokens = cache.states.held[rows[:, None].to(device), numbers]
        return tokens.unflatten(1, (count, width))

    def _pool(self, tokens_RNWH: Tensor) -> Tensor:
        """One embedding per chunk, [R, N, H]; 16-bit states are summed in fp32."""
        if self.config.context_pooling == "mean":
            wide = torch.promote_types(tokens_RNWH.dtype, torch.float32)
            context = tokens_RNWH.mean(dim=2, dtype=wide).to(tokens_RNWH.dtype)
        else:
            context = tokens_RNWH[:, :, 0 if self.config.context_pooling == "first" else -1]
        return context.detach() if self.config.context_stop_gradient else context

    def _guidance(self, hidden_BTH: Tensor, predictions: Tensor | None, places: Places) -> Tensor:
        """The prediction that each token receives, [B, T, H]."""
        if predictions is None:
            return torch.zeros_like(hidden_BTH)
        chunks_BT = (places.numbers_BT + self.config.context_shift) // self.config.context_chunk_size - 1
        index_BT = chunks_BT.clamp(min=0, max=predictions.shape[1] - 1)
        if places.alike:
            found = predictions.index_select(1, index_BT[0])
        else:
            found = predictions[torch.arange(len(index_BT), device=index_BT.device)[:, None], index_BT]
        return found.masked_fill((chunks_BT < 0)[..., None], 0)

    def _fuse(self, hidden_BTH: Tensor, guidance_BTH: Tensor) -> Tensor:
        if self.config.context_fusion == "norm_add":
            return self.token_norm(hidden_BTH) + guidance_BTH
        if self.config.context_fusion == "add":
            return hidden_BTH + guidance_BTH
        return hidden_BTH + self.gate * guidance_BTH
