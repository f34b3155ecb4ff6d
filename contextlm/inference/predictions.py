"""See and replace what the context predictor says, in the trainer's model and in transformers' alike.

Shapes: C chunks, B sequences, H hidden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from contextlm.errors import UserError
from contextlm.inference.subject import Subject
from contextlm.model.context_control import control

# (pooled chunks, predictions), both [C, B, H] -> what the tokens are to receive.
Replacement = Callable[[Tensor, Tensor], Tensor]


class _NoPredictor(torch.nn.Module):
    """Stands where the trainer's model has no predictor: the pooled chunk is the prediction."""

    def forward(self, context_CBH: Tensor, **_: Any) -> Tensor:
        """What was given."""
        return context_CBH


@contextlib.contextmanager
def replaced(examined: Subject, replacement: Replacement) -> Iterator[None]:
    """Inside, every prediction passes through `replacement`, which may also only look.

    Without a cache, that is: a step with one sees the new chunks alone.
    """
    chunks_first = examined.trainer is not None

    def hook(_: torch.nn.Module, given: tuple, named: dict, prediction: Tensor) -> Tensor:
        if chunks_first:
            return replacement(given[0], prediction)
        return replacement(given[0].transpose(0, 1), prediction.transpose(0, 1)).transpose(0, 1)

    with contextlib.ExitStack() as stack:
        for head in context_heads(examined.model):
            if head.predictor is None:
                head.predictor = _NoPredictor()
                stack.callback(setattr, head, "predictor", None)
            stack.callback(head.predictor.register_forward_hook(hook, with_kwargs=True).remove)
        yield


@contextlib.contextmanager
def controlled(examined: Subject, kind: str) -> Iterator[None]:
    """Inside, predictions are replaced as `--context-control kind` says.

    Raises:
        UserError: the model has no context head.
    """
    if kind == "none":
        yield
        return
    if not examined.chunk_size:
        raise UserError(f"--context-control {kind}: {examined.folder} is a plain model without a context head")
    torch.manual_seed(0)  # of `random`
    if examined.trainer is not None:
        from contextlm.model import context_head  # after the runtime

        with context_head.controlled([examined.model], kind):
            yield
        return
    with replaced(examined, lambda context_CBH, prediction_CBH: control(kind, prediction_CBH, context_CBH)):
        yield


@contextlib.contextmanager
def open_gate(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the gate is 1: behind a gate near 0 no fault of the head could be seen."""
    gates = [head.gate for head in context_heads(model) if hasattr(head, "gate")]
    before = [gate.detach().clone() for gate in gates]
    for gate in gates:
        gate.data.fill_(1)
    try:
        yield
    finally:
        for gate, value in zip(gates, before, strict=True):
            gate.data.copy_(value)


def context_heads(model: torch.nn.Module) -> list[Any]:
    """The heads of a model: one or none; of either implementation."""
    return [module for name, module in model.named_modules() if name.split(".")[-1] == "context_head"]
