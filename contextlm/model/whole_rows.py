"""Have torch's compiler read a row of up to 2,048 columns once, as it does of itself up to 1,024.

What is slow: it has a reduction over more columns loop over its row, and then read it again. At 1,600 columns (GPT-2
1.5B) the forward pass of LayerNorm moved 1.7 TB/s on an H200, of 4.2 that a copy moves, and took 2.8% of an iteration.
The mend: a row of up to 2,048 columns lies in registers: 90 us become 55.
Test: tests/unit/model/test_whole_rows.py; on CUDA tests/gpu/test_compilation.py.

Only what compiles imports this: it takes the compiler along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch._inductor.config
from torch._inductor.choices import InductorChoices
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.virtualized import V

if TYPE_CHECKING:
    from torch._inductor.codegen.simd_kernel_features import SIMDKernelFeatures

MAX_COLUMNS = 2048


class WholeRows(InductorChoices):
    """The compiler's own choices but for rows that fit into registers."""

    def uuid(self) -> str:
        """Keeps what is compiled so apart in the compiler's cache."""
        return f"contextlm rows of {MAX_COLUMNS}"

    @staticmethod
    def should_use_persistent_reduction(features: SIMDKernelFeatures, cooperative_reduction: bool) -> bool:
        """Whether a kernel holds all that it reduces at once; rows are what lies side by side in memory."""
        is_row = features.get_reduction_hint() == ReductionHint.INNER and not cooperative_reduction
        if is_row and V.graph.sizevars.statically_known_leq(features.reduction_numel, MAX_COLUMNS):
            return True
        stock: bool = InductorChoices.should_use_persistent_reduction(features, cooperative_reduction)
        return stock


def has_place() -> bool:
    """Whether torch can be told; 2.10 and later can."""
    return hasattr(torch._inductor.config, "inductor_choices_class")


def read_rows_once() -> None:
    """Apply the mend to what this thread compiles from now on, where that has a place and nobody else took it."""
    if has_place() and torch._inductor.config.inductor_choices_class is None:
        torch._inductor.config.inductor_choices_class = WholeRows
        V.set_choices_handler(WholeRows())  # this thread may have taken torch's already
