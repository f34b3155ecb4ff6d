"""The proof of a conversion: two models give the same logits on random tokens.

A head whose gate is near 0 is invisible, so it is compared a second time with its gate at 1.

Shapes: B rows, S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from contextlm.errors import UserError

# Of the largest logit, in fp32. Rounding is 1e-7 to 1e-5 by depth; the wrong GELU is above 1e-4 even on random weights.
TOLERANCE = 5e-5
_SEED = 20280
_GATE = "context_head.gate"


def probes(vocab_size: int, num_positions: int) -> list[Tensor]:
    """Token ids [B, S]: two rows that end inside a chunk of any size but 1, and one too short for a chunk of 2."""
    generator = torch.Generator().manual_seed(_SEED)
    sizes = ((2, min(num_positions, 83)), (1, 1))
    return [torch.randint(vocab_size, size, generator=generator) for size in sizes]


def logits_of_ours(model: torch.nn.Module, vocab_size: int, num_positions: int) -> list[Tensor]:
    """Logits [B, S, V] of our model for each probe, in fp32 on the CPU.

    Args:
        model: whole, in evaluation mode.
        vocab_size: V; what the model has beyond is padding.
        num_positions: the longest text.
    """
    device = next(model.parameters()).device

    def forward(ids_BS: Tensor) -> Tensor:
        ids_BS = ids_BS.to(device)
        return model(ids_BS, torch.arange(ids_BS.shape[1], device=device).expand_as(ids_BS), None)

    return _logits(model, forward, vocab_size, num_positions)


def logits_of_theirs(model: torch.nn.Module, vocab_size: int, num_positions: int) -> list[Tensor]:
    """The same of a model of transformers."""
    return _logits(model, lambda ids_BS: model(ids_BS).logits, vocab_size, num_positions)


@torch.no_grad()
def _logits(
    model: torch.nn.Module, forward: Callable[[Tensor], Tensor], vocab_size: int, num_positions: int
) -> list[Tensor]:
    """As it is and with an open gate."""
    found = []
    for open_gate in (False, True):
        with _gate_at_one(model) if open_gate else contextlib.nullcontext(True) as exists:
            if exists:
                found += [forward(ids)[..., :vocab_size].float().cpu() for ids in probes(vocab_size, num_positions)]
    return found


@contextlib.contextmanager
def _gate_at_one(model: torch.nn.Module) -> Iterator[bool]:
    """Inside, the model's gate is open; tells whether it has one."""
    gates = [parameter for name, parameter in model.named_parameters() if name.endswith(_GATE)]
    before = [gate.clone() for gate in gates]
    for gate in gates:
        gate.fill_(1)
    yield bool(gates)
    for gate, value in zip(gates, before, strict=True):
        gate.copy_(value)


def certify(expected: list[Tensor], found: list[Tensor], **facts: Any) -> dict[str, Any]:
    """The certificate of a conversion.

    Raises:
        UserError: the logits differ by more than rounding, or are not finite.
    """
    difference = max((a - b).abs().max().item() for a, b in zip(expected, found, strict=True))
    largest = max(a.abs().max().item() for a in expected)
    relative = difference / largest if largest > 0 else difference
    if not relative <= TOLERANCE:  # NaN is no proof either
        raise UserError(
            f"the converted model is another one: its logits differ by {difference:.3g}, {relative:.3g} of the largest "
            f"(allowed: {TOLERANCE:g}); nothing was kept"
        )
    return {
        "max_abs_difference": difference,
        "max_abs_logit": largest,
        "relative_difference": relative,
        "tolerance": TOLERANCE,
        "compared_logits": sum(a.numel() for a in expected),
        "dtype": "float32",
        **facts,
    }
