"""Recompute a part that returns one of its parameters, as the MLP returns its bias.

What is wrong: `CheckpointFunction` (tensor_parallel/random.py:496) passes every output through autograd's own
function. A parameter that comes back from it is no leaf any more but an output of the recomputed part, whose
backward then calls itself: with `recompute_modules=["mlp"]` and biases, training never comes back from its first
backward pass.
The mend: parameters among the outputs go around the function; their gradients reach them on the ordinary way.
Test: tests/unit/model/test_recompute.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from megatron.core import tensor_parallel
from megatron.core.tensor_parallel import random
from torch.nn import Parameter

from contextlm.megatron.rewrite import SourceChanged

_BODY = "return CheckpointFunction.apply(function, distribute_saved_activations, *args)"


def checkpoint(function: Callable[..., Any], distribute_saved_activations: bool, *args: Any) -> Any:
    """Run `function` without saving what its backward pass needs, and again in the backward pass."""
    parameters: dict[int, Parameter] = {}

    def without_parameters(*inputs: Any) -> Any:
        outputs = function(*inputs)
        if not isinstance(outputs, tuple):
            return outputs
        parameters.update((i, x) for i, x in enumerate(outputs) if isinstance(x, Parameter))
        return tuple(None if i in parameters else x for i, x in enumerate(outputs))

    outputs = random.CheckpointFunction.apply(without_parameters, distribute_saved_activations, *args)
    return tuple(parameters.get(i, x) for i, x in enumerate(outputs)) if parameters else outputs


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    if random.checkpoint is checkpoint:
        return
    if _BODY not in inspect.getsource(random.checkpoint):
        raise SourceChanged("tensor_parallel.random.checkpoint: is this mend still needed?")
    random.checkpoint = tensor_parallel.checkpoint = checkpoint
