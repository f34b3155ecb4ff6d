"""ContextLM for transformers: a GPT-2 or GPT-NeoX backbone with a context head between two of its layers.

    tokens -> layers 0..E-1 -> h -> pool W tokens -> predictor (causal, over chunks) -> p
    h' = fuse(h, p of each token's chunk) -> layers E..L-1 -> norm -> logits

Read `head_contextlm.py` (the method), `layers_contextlm.py`, `cache_contextlm.py` (decoding). The maths is the
trainer's: every conversion compares their logits. This file also travels in exported folders: it imports nothing but
torch, transformers and the files beside it.

Shapes: B rows, T columns of this call, K columns in all, H hidden.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .cache_contextlm import ContextCache, Places, count_tokens
from .configuration_contextlm import ContextLMConfig
from .head_contextlm import ContextHead
from .layers_contextlm import ContextLMLayer, Rotation, rotation

# The output's field for the cache: transformers renamed it.
_CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class ContextLMPreTrainedModel(PreTrainedModel):
    """What transformers must know of the two classes below."""

    config: ContextLMConfig
    config_class = ContextLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ContextLMLayer", "ContextHead"]
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)
        if isinstance(module, ContextHead) and hasattr(module, "gate"):
            nn.init.zeros_(module.gate)


class ContextLMModel(ContextLMPreTrainedModel):
    """From tokens to the states behind the final norm."""

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned_absolute":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(ContextLMLayer(config) for _ in range(config.num_hidden_layers))
        self.context_head = ContextHead(config) if config.context_chunk_size > 0 else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.embed_tokens = cast(nn.Embedding, value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: ContextCache | None = None,
        past_key_values: ContextCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As every model of transformers; `cache` and `past_key_values` are two names for one thing.

        Args:
            attention_mask: [B, K] over all columns, those in the cache included: 0 is padding, anywhere.
            position_ids: [B, T]; counted from the first real token of each row if not given.

        Raises:
            ValueError: what cannot be: attention weights, another mask, another kind of cache, a text that is too long.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of them")
        if output_attentions:
            raise ValueError("output_attentions: fused attention keeps no weights")
        cache = cache if cache is not None else past_key_values
        if cache is not None and not isinstance(cache, ContextCache):
            raise ValueError(f"cache: a {type(cache).__name__} has no room for chunks; give a ContextCache or none")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.gradient_checkpointing and self.training:
            use_cache, cache = False, None
        if use_cache and cache is None:
            cache = ContextCache()
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        places = count_tokens(hidden, attention_mask, cache)
        positions = places.numbers_BT if position_ids is None else position_ids
        if self.config.position_embedding_type == "learned_absolute":
            if int(places.after.max()) > self.config.max_position_embeddings:
                raise ValueError(
                    f"{int(places.after.max())} tokens: the model has {self.config.max_position_embeddings} positions"
                )
            hidden = hidden + self.embed_positions(positions)
        if self.config.hidden_dropout:
            hidden = functional.dropout(hidden, self.config.hidden_dropout, self.training)
        hidden, states = self._run(hidden, places, rotation(self.config, positions, hidden.dtype), cache)
        if cache is not None:
            cache.commit(places)
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        kept: dict[str, Any] = {_CACHE: cache if use_cache else None}
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            hidden_states=(*states, hidden) if output_hidden_states else None,
            **kept,
        )

    def _run(
        self, hidden: Tensor, places: Places, by: Rotation | None, cache: ContextCache | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Through the layers, with the head before layer E; also what entered each layer, the head behind it."""
        mask, states = self._mask(hidden, places), []
        for index, layer in enumerate(self.layers):
            if self.context_head is not None and index == self.config.context_encoder_layers:
                hidden = self.context_head(hidden, places, cache)
            states.append(hidden)
            store = None if cache is None else functools.partial(cache.update, layer_idx=index)
            hidden = layer(hidden, mask, by, store)
        return self.norm(hidden), states

    @staticmethod
    def _mask(hidden_BTH: Tensor, places: Places) -> Tensor | None:
        """Which columns each one sees, [B or 1, 1, T, K]; None where a plain causal mask says the same."""
        num_new, device = hidden_BTH.shape[1], hidden_BTH.device
        if places.columns_BK is None and (num_new == 1 or int(places.before[0]) == 0):
            return None
        num_all = int(places.after[0]) if places.columns_BK is None else places.columns_BK.shape[1]
        keys, queries = torch.arange(num_all, device=device), torch.arange(num_all - num_new, num_all, device=device)
        mask = (keys <= queries[:, None])[None, None]
        if places.columns_BK is not None:
            # Padding sees itself, so that no row of the softmax is empty; nobody reads it.
            mask = (mask & places.columns_BK[:, None, None]) | (keys == queries[:, None])
        return mask


class ContextLMForCausalLM(ContextLMPreTrainedModel, GenerationMixin):
    """A ContextLM with its output layer."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: ContextLMConfig) -> None:
        super().__init__(config)
        self.model = ContextLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output layer."""
        self.lm_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: ContextCache | None = None,
        past_key_values: ContextCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As every causal language model of transformers; see `ContextLMModel.forward`.

        Args:
            labels: [B, T]: the input ids, -100 where no loss is wanted (padding); they are shifted here.
            logits_to_keep: of the last columns only, or of these columns; 0 = all.
        """
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            cache=cache,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=output.hidden_states, **{_CACHE: getattr(output, _CACHE)}
        )

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `generate` leaves the cache to the first forward pass, which makes a ContextCache

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """`GenerationMixin.generate`. Assisted decoding is refused: its crops have not been proved."""
        if getattr(kwargs.get("generation_config"), "is_assistant", False):
            raise ValueError("assisted decoding: a ContextLM cannot be the assistant yet; use another model")
        return super().generate(*args, **kwargs)

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("assisted decoding: not for a ContextLM yet; leave out assistant_model and prompt lookup")
