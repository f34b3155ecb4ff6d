"""What a sceptic asks of a context head: what is its content worth, where, and what do predictions look like?

Shapes: B samples of S tokens, C chunks, W tokens a chunk, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contextlm.analysis.errors_of_means import ratio_and_error
from contextlm.config.fields import all_fields
from contextlm.data.samples import Samples
from contextlm.errors import UserError
from contextlm.inference.predictions import controlled, replaced
from contextlm.inference.scoring import batches
from contextlm.inference.subject import Subject


class Spread:
    """Mean and covariance of vectors [N, H] that come in pieces, for their effective rank."""

    def __init__(self) -> None:
        self.count = 0
        self.sum, self.products = torch.zeros(()), torch.zeros(())  # become [H], [H, H]

    def add(self, vectors: Tensor) -> None:
        """More of them."""
        vectors = vectors.double().cpu()
        self.count += len(vectors)
        self.sum = self.sum + vectors.sum(dim=0)
        self.products = self.products + vectors.T @ vectors

    def effective_rank(self) -> float:
        """exp of the entropy of the shares of the covariance's eigenvalues: from 1 (one direction) to H (all alike)."""
        mean = self.sum / self.count
        eigenvalues = torch.linalg.eigvalsh(self.products / self.count - mean[:, None] * mean).clamp(min=0)
        shares = eigenvalues / eigenvalues.sum()
        shares = shares[shares > 0]
        return float(torch.exp(-(shares * shares.log()).sum()))


class Chunks:
    """Looks at each batch's pooled chunks and predictions as they pass, and changes nothing."""

    def __init__(self) -> None:
        self.predictions, self.contexts = Spread(), Spread()
        self.cosines: dict[str, list[float]] = {"prediction": [], "present_chunk": []}

    def __call__(self, context_CBH: Tensor, prediction_CBH: Tensor) -> Tensor:
        """What `replaced` calls."""
        self.predictions.add(prediction_CBH.flatten(0, 1))
        self.contexts.add(context_CBH.flatten(0, 1))
        following = context_CBH[1:].float()
        for name, guess_CBH in (("prediction", prediction_CBH), ("present_chunk", context_CBH)):
            cosines_CB = torch.cosine_similarity(guess_CBH[:-1].float(), following, dim=-1)
            self.cosines[name] += cosines_CB.mean(dim=0).tolist()  # of each sample
        return prediction_CBH

    def measures(self) -> dict[str, Any]:
        """Cosines with the next pooled chunk, and effective ranks."""
        found: dict[str, Any] = {}
        for name, values in self.cosines.items():
            mean, error = ratio_and_error(values, [1] * len(values))
            found |= {f"cosine_{name}_next_chunk": mean, f"cosine_{name}_next_chunk_stderr": error}
        return found | {
            "effective_rank_predictions": self.predictions.effective_rank(),
            "effective_rank_chunks": self.contexts.effective_rank(),
            "vectors": self.predictions.count,
        }


def diagnose(
    examined: Subject,
    samples: Samples,
    *,
    batch_size: int,
    max_samples: int | None = None,
    progress: Callable[[str, int, int], None] = lambda kind, done, total: None,
) -> dict[str, Any]:
    """The context's worth under each control, by position in the chunk, and the geometry of the predictions.

    Args:
        examined: a model with a context head.
        samples: the stream, of samples of two chunks or more.
        batch_size: samples per forward pass, 2 or more.
        max_samples: how many; one pass if None.
        progress: told the control, and how many samples of how many are done.

    Returns:
        `controls`: of each the loss, and `worth`, what the loss rises by, with its paired standard error over samples;
        `lm_loss_by_position` in a chunk, with and without (`zero`) the context; and `Chunks.measures`.
    """
    width = examined.chunk_size
    if not width:
        raise UserError(f"--diagnose: {examined.folder} is a plain model without a context head")
    ends = examined.document_ends
    if ends is not None and ends.matter_to_layers:
        raise UserError(
            f"--diagnose: in {examined.folder} chunks begin anew with each document, which it cannot tell apart yet; "
            "use --context-control"
        )
    seen = Chunks()
    losses: dict[str, np.ndarray] = {}
    for kind in all_fields()["context_control"].choices or ():
        with replaced(examined, seen) if kind == "none" else controlled(examined, kind):
            losses[kind] = _losses(examined, samples, batch_size, max_samples, progress, kind)
    normal_BS = losses["none"]
    controls = {}
    for kind, loss_BS in losses.items():
        worth, error = ratio_and_error(np.nanmean(loss_BS - normal_BS, axis=1).tolist(), [1] * len(loss_BS))
        controls[kind] = {"lm_loss": float(np.nanmean(loss_BS)), "worth": worth, "worth_stderr": error}
    return {
        "chunk_size": width,
        "samples": len(normal_BS),
        "controls": controls,
        "lm_loss_by_position": _by_position(normal_BS, width),
        "lm_loss_by_position_context_zeroed": _by_position(losses["zero"], width),
        **seen.measures(),
    }


def _by_position(loss_BS: np.ndarray, width: int) -> list[float]:
    """The mean loss at each place of a chunk."""
    return [float(np.nanmean(loss_BS[:, place::width])) for place in range(width)]


def _losses(
    examined: Subject,
    samples: Samples,
    batch_size: int,
    max_samples: int | None,
    progress: Callable[[str, int, int], None],
    kind: str,
) -> np.ndarray:
    """The loss of each token of each sample, [samples, S]."""
    found = []
    for tokens, done, total in batches(samples, batch_size, max_samples):
        if tokens.shape[1] <= 2 * examined.chunk_size:
            raise UserError(
                f"--diagnose: samples of {tokens.shape[1] - 1} tokens hold fewer than two chunks of "
                f"{examined.chunk_size}: use a longer --window, or --seq-length in training"
            )
        found.append(examined.losses(tokens).cpu().numpy())
        progress(kind, done, total)
    return np.concatenate(found)
