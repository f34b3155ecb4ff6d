"""A text gives the same logits alone, among others, and with padding on either side.

Shapes: B rows of S columns, V ids of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contextlm.inference.cached_steps import cached_step
from contextlm.inference.subject import Subject
from contextlm.verification.proof import ROUNDING, Proof
from contextlm.verification.random_texts import random_ids


def batch_invariance(examined: Subject) -> list[Proof]:
    """Texts of unequal lengths in one batch, padded on the right, whose columns come later and so are not seen."""
    texts = _texts(examined)
    ids_BS = _padded(texts, left=False)
    alone = _alone(examined, texts)
    worst = _worst(list(examined.logits(ids_BS)), alone)
    return [Proof("a text alone and in a batch", worst, ROUNDING, f"lengths {_lengths(texts)}, no mask")]


def padding_invariance(examined: Subject) -> list[Proof]:
    """The same with a mask, padded on either side; on the left also two cached steps later.

    Args:
        examined: a model of transformers, which takes masks.
    """
    texts = _texts(examined)
    alone = _alone(examined, texts)
    proofs = []
    for side in ("right", "left"):
        left = side == "left"
        ids_BS, mask_BS = _padded(texts, left), _padded([torch.ones_like(text) for text in texts], left)
        cut = 2 if left else 0  # columns that are decoded one by one
        end = ids_BS.shape[1] - cut
        steps, cache = [], None
        for begin, stop in ((0, end), *((column, column + 1) for column in range(end, ids_BS.shape[1]))):
            ids_BT, mask_BK = ids_BS[:, begin:stop].to(examined.device), mask_BS[:, :stop].to(examined.device)
            logits_BTV, cache = cached_step(examined.model, ids_BT, cache, mask_BK)
            steps.append(logits_BTV)
        logits_BSV = torch.cat(steps, dim=1)
        rows = [row[-len(text) :] if left else row for row, text in zip(logits_BSV, texts, strict=True)]
        remark = f"lengths {_lengths(texts)}" + (f", the last {cut} tokens through the cache" if cut else "")
        proofs.append(Proof(f"padding on the {side}", _worst(rows, alone), ROUNDING, remark))
    return proofs


def _texts(examined: Subject) -> list[Tensor]:
    """Random texts that end at several places of a chunk; the shortest completes none."""
    width = max(2, examined.chunk_size)
    lengths = (2 * width + 3, 2 * width + 2, 2 * width, width + 2, 3)
    return [random_ids(examined, min(length, examined.num_positions), seed=length) for length in lengths]


def _lengths(texts: list[Tensor]) -> str:
    return ", ".join(str(len(text)) for text in texts)


def _padded(texts: list[Tensor], left: bool) -> Tensor:
    """Texts as rows of one length, filled up with zeros."""
    longest = max(len(text) for text in texts)
    fill = [torch.zeros(longest - len(text), dtype=torch.long) for text in texts]
    return torch.stack([torch.cat((pad, text) if left else (text, pad)) for text, pad in zip(texts, fill, strict=True)])


def _alone(examined: Subject, texts: list[Tensor]) -> list[Tensor]:
    return [examined.logits(text[None])[0] for text in texts]


def _worst(rows: list[Tensor], alone: list[Tensor]) -> float:
    """The greatest deviation of the real columns, padding on the right being left out."""
    largest = max(logits.abs().max().item() for logits in alone)
    pairs = zip(rows, alone, strict=True)
    return max((row[: len(own)].float() - own.float()).abs().max().item() for row, own in pairs) / largest
