"""Compiled layers return what they compute, view or not.

What is wrong: `make_viewless_tensor` (utils.py:752) sets `.data` of a new tensor where the layers' output is a view, as
it is in an evaluation; `torch._dynamo` breaks the graph there.
The mend: inside a graph the tensor is returned as it is: there are no views to be freed.
Test: tests/unit/model/test_compilation.py.
"""

from __future__ import annotations

from megatron.core import utils

from contextlm.megatron.rewrite import rewrite

_CHECK = """    # return tensor as-is, if not a 'view'
    if inp._base is None:
"""
_CHECK_COMPILED = """    if torch.compiler.is_compiling() or inp._base is None:
"""


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(utils.make_viewless_tensor, {_CHECK: (_CHECK_COMPILED, 1)})
