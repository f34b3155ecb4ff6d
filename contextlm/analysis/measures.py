"""What an evaluation measures, in training and by the tools alike."""

from __future__ import annotations

import math
from typing import NamedTuple

from contextlm.config.schema import Config

POSITIONS_TOLD = 16  # longer lists of losses by position are for metrics.jsonl alone: no line and no chart holds them


def has_zeroed_pass(config: Config) -> bool:
    """Whether samples are evaluated again with the context zeroed: where no chunk is complete, nothing is to zero."""
    has_predictions = 0 < config.context.context_chunk_size <= config.model.seq_length
    return has_predictions and config.training.eval_context_zeroed


class Evaluation(NamedTuple):
    """Loss over one stream of samples, nats per token.

    Attributes:
        lm_loss: NaN if no token is scored.
        num_tokens: tokens of the stream, those that are scored.
        num_bytes: their bytes of text; 0 if not known.
        lm_loss_by_position: the loss of the tokens at each position of a chunk, the first to the last; None for a
            plain model, NaN where samples, or all documents, are too short to have any there.
        lm_loss_context_zeroed: the loss with zero in place of every prediction; None for a plain model, or if not
            measured.
    """

    lm_loss: float
    num_tokens: int
    num_bytes: int
    lm_loss_by_position: tuple[float, ...] | None = None
    lm_loss_context_zeroed: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(loss) per token; infinite where that overflows."""
        return math.inf if self.lm_loss >= 700 else math.exp(self.lm_loss)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of text, comparable between tokenizers; None where the text is not known."""
        return self.lm_loss / math.log(2) * self.num_tokens / self.num_bytes if self.num_bytes else None
