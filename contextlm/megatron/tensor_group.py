"""A default tensor-parallel group without a warning, so that layers trace as one graph.

What is wrong: `get_tensor_model_parallel_group_if_none` (utils.py:489) calls `warnings.warn` where it is
given no group. `torch._dynamo` breaks the graph there: eight breaks in one layer.
The mend: the same function without the warning.
Test: tests/unit/model/test_one_graph.py.
"""

from __future__ import annotations

from megatron.core import utils

from contextlm.megatron.rewrite import rewrite

_WARNING = """        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:
            warnings.warn(
                "Warning: tp_group is None, using default tp group. "
                "Passing tp_group will be mandatory soon",
                DeprecationWarning,
                stacklevel=2,
            )
"""


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(utils.get_tensor_model_parallel_group_if_none, {_WARNING: ("", 1)})
