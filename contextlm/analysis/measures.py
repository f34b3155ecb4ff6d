"""What an evaluation measures, in training and by the tools alike."""

from __future__ import annotations

import math
from typing import NamedTuple


class Evaluation(NamedTuple):
    """Loss over one stream of samples, nats per token; its tokens, and their bytes of text (0: not known)."""

    lm_loss: float
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        """exp(loss) per token; infinite where that overflows."""
        return math.exp(self.lm_loss) if self.lm_loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of text, comparable between tokenizers; None where the text is not known."""
        return self.lm_loss / math.log(2) * self.num_tokens / self.num_bytes if self.num_bytes else None
