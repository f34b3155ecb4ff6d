"""Divide the gradients by the number of tokens without asking the device whether there are any.

What is wrong: `finalize_model_grads` (distributed/finalize_model_grads.py:495) tests `num_tokens > 0` on the host,
which waits for the whole backward pass, once for each part of the model.
The mend: divide by at least 1.
Test: tests/distributed/test_host_syncs.py.
"""

from __future__ import annotations

from megatron.core.distributed import finalize_model_grads

from contextlm.megatron.rewrite import rewrite

_TEST = """            if num_tokens > 0:
                scaling = 1.0 / num_tokens
                model_chunk.scale_gradients(scaling)
"""
_SCALE = "            model_chunk.scale_gradients(1.0 / num_tokens.clamp(min=1))\n"


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(finalize_model_grads, {_TEST: (_SCALE, 1)})
