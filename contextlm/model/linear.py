"""megatron-core's parallel linear layers, which are plain ones where nobody shares the matrix.

megatron-core's own wrap the product into an autograd function written in Python, for the messages between
tensor-parallel ranks, and leave the bias to be added in a pass of its own. One rank alone needs neither: torch's
product adds the bias, or the compiler's kernel for the residual, which comes next.
"""

from __future__ import annotations

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from torch import Tensor
from torch.nn.functional import linear


class ColumnLinear(ColumnParallelLinear):
    """Each tensor-parallel rank has some of the outputs."""

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[S, B, inputs] to [S, B, outputs of this rank], and the bias if it is not in them yet."""
        if self.tp_group.size() > 1:
            return super().forward(input_, weight, runtime_gather_output)
        return linear(input_, self.weight if weight is None else weight, self.bias), None

    @property
    def is_torchs_product(self) -> bool:
        """Whether all that happens is torch's product, which adds a bias."""
        return type(self) is ColumnLinear and self.tp_group.size() == 1 and self.bias is not None


class RowLinear(RowParallelLinear):
    """Each tensor-parallel rank has some of the inputs."""

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        """[S, B, inputs of this rank] to [S, B, outputs], and the bias if it is not in them yet."""
        if self.tp_group.size() > 1:
            return super().forward(input_)
        if torch.compiler.is_compiling():  # at 1,600 outputs a product that adds a bias takes 5 to 9% longer
            return linear(input_, self.weight), self.bias
        return linear(input_, self.weight, self.bias), None
