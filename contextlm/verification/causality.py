"""No logit sees a later token: change the tokens from s on, and every logit before s stays bit for bit.

Shapes: B sequences of S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.inference.predictions import replaced
from contextlm.inference.subject import Subject
from contextlm.verification.proof import Proof

_NAME = "no logit sees a later token"
# What a whole proof reads at once, in tokens: about 100 MB of logits of GPT-2's vocabulary.
_TOKENS_AT_ONCE = 512


def causality(examined: Subject) -> list[Proof]:
    """The claim, and its control: with every prediction one chunk early the same check finds a leak."""
    width = max(1, examined.chunk_size)
    lengths = sorted({length for length in _lengths(width) if 2 <= length <= examined.num_positions})
    worst, seen = 0.0, True
    for length in lengths:
        deviation, shows = _leak(examined, length, _starts(length, width))
        worst, seen = max(worst, deviation), seen and shows
    phases = f"every start s mod {width}" if examined.chunk_size else "starts"
    remark = f"{phases}, lengths {', '.join(map(str, lengths))}; must be exactly 0"
    if not seen:
        remark = "a change of the tokens changes no logit: nothing is proved"
    proofs = [Proof(_NAME, worst, 0.0, remark, fails=not seen)]
    if examined.chunk_size and examined.num_positions > 2 * width:
        proofs.append(_control(examined, min(4 * width, examined.num_positions)))
    return proofs


def _control(examined: Subject, length: int) -> Proof:
    """Predictions one chunk early must be noticed, or the head is invisible and the claim above is empty."""
    with replaced(examined, lambda _, prediction_CBH: prediction_CBH.roll(-1, dims=0)):
        deviation, _ = _leak(examined, length, _starts(length, examined.chunk_size))
    remark = f"a leak made on purpose shows as {deviation:.2g}"
    if not deviation > 0:
        remark = "predictions one chunk early change no earlier logit: the head is invisible, causality is not proved"
    return Proof("that check finds a leak", None, 0.0, remark, fails=not deviation > 0)


def _lengths(width: int) -> tuple[int, ...]:
    """Around the ends of chunks, one text shorter than a chunk, one of many chunks with a rest."""
    return width - 1, width, width + 1, 2 * width, 3 * width + width // 2, max(33, 4 * width + 1)


def _starts(length: int, width: int) -> list[int]:
    """Every phase of a chunk at both ends of the text."""
    return sorted({*range(1, min(length, 2 * width + 1)), *range(max(1, length - width), length)})


def _leak(examined: Subject, length: int, starts: list[int]) -> tuple[float, bool]:
    """The greatest change of a logit before a start, and whether every change shows behind its start.

    All rows are computed in one shape, changed or not, so that equal numbers are rounded alike.
    """
    worst, shows, vocab_size = 0.0, True, examined.tokenizer.vocab_size
    generator = torch.Generator().manual_seed(length)
    text_S = torch.randint(vocab_size, (length,), generator=generator)
    num_rows = max(1, min(len(starts), _TOKENS_AT_ONCE // length))
    before_BSV = examined.logits(text_S.expand(num_rows, -1).contiguous()).float()
    largest = _largest(before_BSV)
    for first in range(0, len(starts), num_rows):
        some = starts[first : first + num_rows]
        some += [some[-1]] * (num_rows - len(some))
        changed_BS = text_S.repeat(num_rows, 1)
        for row, start in enumerate(some):
            changed_BS[row, start:] = (changed_BS[row, start:] + 1 + start) % vocab_size
        after_BSV = examined.logits(changed_BS).float()
        for row, start in enumerate(some):
            difference_SV = (after_BSV[row] - before_BSV[row]).abs()
            worst = max(worst, difference_SV[:start].max().item() / largest)
            shows = shows and bool(difference_SV[start:].amax() > 0)
    return worst, shows


def _largest(logits: Tensor) -> float:
    """What deviations are shares of."""
    return max(logits.abs().max().item(), 1e-30)
