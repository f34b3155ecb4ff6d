"""The language model of one pipeline stage: megatron-core's `GPTModel` with its padding masked.

The context head is not here: it sits inside a decoder layer (`layers.py`), so that pipeline stages and
checkpoints work as for any GPT.

Shapes: S tokens, B batch, V padded vocabulary or this tensor-parallel rank's part of it.
"""

from __future__ import annotations

import re
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
    """

    def __init__(self, *, true_vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.true_vocab_size = true_vocab_size

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

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Per-token loss [B, S] where labels are given, else logits [B, S, V]; states [S, B, H] between stages.

        The arguments are megatron-core's.
        """
        output = self.states_or_logits(*args, **kwargs)
        if not self.post_process:
            return output
        if labels is None:
            self._mask_padding(output)
            return output.transpose(0, 1).contiguous()
        if output.is_cuda:
            return self._fused_losses(output, labels)
        self._mask_padding(output)
        return self.compute_language_model_loss(labels, output)

    def states_or_logits(self, *args: Any, **kwargs: Any) -> Tensor:
        """All but the loss: logits [S, B, V] of the last stage, padding unmasked, else states [S, B, H]."""
        return super().forward(*args, **kwargs)

    def _postprocess(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Logits [S, B, V], or the states of a stage that is not the last."""
        if not self.post_process:
            return hidden_states
        tied = self.share_embeddings_and_output_weights
        logits_SBV, _ = self.output_layer(
            hidden_states,
            weight=self.shared_embedding_or_output_weight() if tied else None,
            runtime_gather_output=kwargs.get("runtime_gather_output"),
        )
        return logits_SBV

    def _fused_losses(self, logits_SBV: Tensor, labels_BS: Tensor) -> Tensor:
        """Per-token loss [B, S]; the logits are overwritten with their gradients."""
        from contextlm.megatron.fused_loss import token_losses  # Triton comes with torch for CUDA

        group, (length, batch, width) = self.pg_collection.tp, logits_SBV.shape
        first_id = group.rank() * width
        num_ids = max(0, min(width, self.true_vocab_size - first_id))
        losses_N = token_losses(logits_SBV.flatten(0, 1), labels_BS.t().flatten(), first_id, num_ids, group)
        return losses_N.view(length, batch).t()

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
