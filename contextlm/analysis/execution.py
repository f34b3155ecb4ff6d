"""How a rank computes, as far as its memory depends on it: by which loss, compiled or not, with gradients where."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from contextlm.config.compile_unit import compile_problems, compile_unit
from contextlm.config.schema import Config
from contextlm.config.unbuffered import adds_nothing_up


class Execution(NamedTuple):
    """What differs between devices and runs.

    Attributes:
        on_cuda: the loss overwrites the logits with their gradients, and masks of dropout have a byte an element.
        compiled: "model", "layer" or "off", as `compile_unit` says.
        buffered: gradients are moved to megatron-core's buffers, else they stay where autograd leaves them.
    """

    on_cuda: bool = True
    compiled: str = "off"
    buffered: bool = True

    @property
    def gradients_wait(self) -> bool:
        """Whether the weights' gradients, as autograd makes them, are all there until the backward pass ends."""
        return self.compiled == "model" or not self.buffered


def execution(config: Config, world_size: int, on_cuda: bool) -> Execution:
    """That of a run of `world_size` processes, each with a GPU or without.

    What `--compile` demands and cannot be had is left to `--compile auto`: planners try options against each other.
    """
    copies = config.data_parallel_size(world_size)
    if compile_problems(config, copies):
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, compile="auto"))
    compiled = compile_unit(config, copies, on_cuda)
    return Execution(on_cuda, compiled, not (on_cuda and adds_nothing_up(config, world_size)))


COMPILED = {"model": "the model compiled as one graph", "layer": "layers compiled", "off": "nothing compiled"}
"""Words for `Execution.compiled`."""
