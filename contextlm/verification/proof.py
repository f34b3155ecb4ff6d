"""What a proof gives."""

from __future__ import annotations

import math
from typing import NamedTuple

# Of the largest logit, in fp32: rounding is 1e-7 to 1e-5 by depth.
ROUNDING = 5e-5


class Proof(NamedTuple):
    """One claim and what was found.

    Attributes:
        claim: in words.
        deviation: the greatest one, as a share of the largest logit; None if the claim is not about logits.
        allowed: how much of it is rounding.
        remark: what was looked at, or why the claim could not be examined.
        fails: the claim is refuted, whatever the deviation.
        skipped: the claim does not apply to this model or could not be examined.
    """

    claim: str
    deviation: float | None
    allowed: float
    remark: str
    fails: bool = False
    skipped: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the claim; NaN does."""
        if self.skipped:
            return True
        small = self.deviation is None or (math.isfinite(self.deviation) and self.deviation <= self.allowed)
        return small and not self.fails

    @property
    def verdict(self) -> str:
        """In a word."""
        return "not examined" if self.skipped else "holds" if self.holds else "FAILS"
