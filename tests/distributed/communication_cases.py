"""What the ranks of a communication test do: count what they tell each other; run by the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.distributed.runs import small_run


class Message(NamedTuple):
    """A collective, send or receive: the operation, shape and bytes of its largest tensor."""

    operation: str
    shape: tuple[int, ...]
    num_bytes: int


class Traffic(NamedTuple):
    """Messages of one rank: of a micro-batch, in its forward and in its backward pass, and those once a step."""

    forward: Counter[Message]
    backward: Counter[Message]
    step: Counter[Message]


class Messages(TorchDispatchMode):
    """Counts messages where they reach a process group, under whatever name a module has imported the function."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Message] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "c10d":
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            largest = max(tensors, key=lambda tensor: tensor.nbytes)
            self.counts[Message(func.name().split("::")[1], tuple(largest.shape), largest.nbytes)] += 1
        return func(*args, **(kwargs or {}))


def traffic(backbone: str, values: dict[str, Any], sabotage: Callable[[Any], None] | None = None) -> Traffic:
    """Of a schedule over one round of micro-batches, and over two: the difference is what micro-batches cost."""
    with small_run(backbone, **values) as run:
        if sabotage is not None:
            sabotage(run)
        # A pipeline that is interleaved takes as many at a time as it has stages.
        in_round = run.layout.groups.pp.size() if len(run.model) > 1 else 1
        forward = _messages(run, in_round, forward_only=True)
        one, two = (_messages(run, rounds * in_round, forward_only=False) for rounds in (1, 2))
        both = two - one
        return Traffic(_of_one(forward & both, in_round), _of_one(both - forward, in_round), step=one - both)


def _messages(run: Any, num_microbatches: int, forward_only: bool) -> Counter[Message]:
    from contextlm.training.step import forward_backward

    batches = run.micro_batches(run.datasets.train, 0, num_microbatches)
    for part in run.model:
        part.train()
        part.zero_grad_buffer()
    with Messages() as messages:
        forward_backward(run, batches, num_microbatches=num_microbatches, forward_only=forward_only)
    if batches is not None:
        batches.close()
    return messages.counts


def _of_one(counts: Counter[Message], num_microbatches: int) -> Counter[Message]:
    assert all(count % num_microbatches == 0 for count in counts.values())
    return Counter({message: count // num_microbatches for message, count in counts.items()})


def _fused_late(fuse: Callable[..., Tensor], hidden_TBH: Tensor, guidance_TBH: Tensor) -> Tensor:
    from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region

    return fuse(hidden_TBH, copy_to_tensor_model_parallel_region(guidance_TBH))


def exchange_tokens(run: Any) -> None:
    """Sabotage: the gradient of the predictions is summed over the ranks after it has been spread to their tokens."""
    from contextlm.model.context_head import heads

    for head in heads(run.language_model):
        fuse, head.exchange.to_every_part = head._fuse, lambda prediction_CBH: prediction_CBH
        head._fuse = partial(_fused_late, fuse)
