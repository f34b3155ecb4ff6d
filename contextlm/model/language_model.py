"""The language model of one pipeline stage: megatron-core's `GPTModel` with its padding masked.

The context head is not here: it sits inside a decoder layer (`layers.py`), so that pipeline stages and
checkpoints work as for any GPT.

Shapes: S tokens, B batch, V padded vocabulary or this tensor-parallel rank's part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.utils import apply_prefix_mapping
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor

from contextlm.model.documents import Documents

_HEAD = re.compile(r"decoder\.layers\.\d+\.context_head\.")


class ContextLM(GPTModel):
    """A GPT whose padded vocabulary never takes part in loss or sampling.

    Args:
        true_vocab_size: token ids below this exist; the rows from there to `vocab_size` are padding.
        others: megatron-core's `GPTModel`.

    Attributes:
        token_losses: hidden states, output weight, labels and true vocabulary size to losses, where something fuses
            that (`compilation.py`); None is megatron-core's way.
    """

    def __init__(self, *, true_vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.true_vocab_size = true_vocab_size
        self.token_losses: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None

    def _preprocess(
        self,
        input_ids: Tensor | None,
        position_ids: Tensor | None,
        *args: Any,
        packed_seq_params: Documents | None = None,
        **kwargs: Any,
    ) -> tuple:
        """What the layers take; where documents begin anew, each token is rotated by its own position.

        megatron-core's angles are those of positions 0, 1, ..., the same for every sample.
        """
        states, angles_S11D, *others = super()._preprocess(
            input_ids, position_ids, *args, packed_seq_params=packed_seq_params, **kwargs
        )
        if packed_seq_params is None or angles_S11D is None:
            return states, angles_S11D, *others
        assert position_ids is not None
        return states, angles_S11D[:, 0][position_ids.T], *others  # [S, B, 1, D]

    def _postprocess(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Per-token loss [B, S] where labels are given, else logits [B, S, V]; states [S, B, H] between stages."""
        if not self.post_process:
            return hidden_states
        tied, labels_BS = self.share_embeddings_and_output_weights, kwargs.get("labels")
        weight = self.shared_embedding_or_output_weight() if tied else None
        if self.token_losses is not None and labels_BS is not None:
            weight = self.output_layer.weight if weight is None else weight
            return self.token_losses(hidden_states, weight, labels_BS, self.true_vocab_size)
        logits_SBV, _ = self.output_layer(
            hidden_states,
            weight=weight,
            runtime_gather_output=kwargs.get("runtime_gather_output"),
        )
        self._mask_padding(logits_SBV)
        if labels_BS is None:
            return logits_SBV.transpose(0, 1).contiguous()
        return self.compute_language_model_loss(labels_BS, logits_SBV)

    def _mask_padding(self, logits_SBV: Tensor) -> None:
        """Set the logits of padded ids to -inf, in place: unmasked they take probability from real ids.

        Autograd is not told: the loss sends no gradient where a probability is 0, and it would copy all of the logits'.
        """
        width = logits_SBV.shape[-1]
        first_id = 0 if width == self.vocab_size else self.pg_collection.tp.rank() * width
        num_real = max(0, min(width, self.true_vocab_size - first_id))
        if num_real < width:
            logits_SBV.detach()[..., num_real:].fill_(float("-inf"))

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> ShardedStateDict:
        """The stage's part of a checkpoint.

        The head is stored under `context_head.`, wherever the encoder ends, and no `_extra_state`: stock
        layers emit those as pickled objects that hold nothing.
        """
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        state = {key: value for key, value in state.items() if not key.endswith("_extra_state")}
        head_prefixes = {match[0] for tensor in state.values() if (match := _HEAD.match(tensor.key))}
        apply_prefix_mapping(state, dict.fromkeys(head_prefixes, "context_head."))
        return state
