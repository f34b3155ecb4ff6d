"""Divide the gradients by the number of tokens without asking the device whether there are any, and only once.

What is wrong: `finalize_model_grads` (distributed/finalize_model_grads.py:495) tests `num_tokens > 0` on the host,
which waits for the whole backward pass, once for each part of the model. And it reads and writes all gradients for it,
where the optimizer's kernel scales what it reads anyway, for the clip.
The mend: divide by at least 1; where a part has `keeps_sums`, note the factor in `gradient_factor` instead.
Test: tests/distributed/test_host_syncs.py, tests/distributed/test_gradient_buffers.py.
"""

from __future__ import annotations

from megatron.core.distributed import finalize_model_grads

from contextlm.megatron.rewrite import rewrite

_TEST = """            if num_tokens > 0:
                scaling = 1.0 / num_tokens
                model_chunk.scale_gradients(scaling)
"""
_SCALE = """            model_chunk.gradient_factor = 1.0 / num_tokens.clamp(min=1)
            if not getattr(model_chunk, 'keeps_sums', False):
                model_chunk.scale_gradients(model_chunk.gradient_factor)
"""


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    rewrite(finalize_model_grads, {_TEST: (_SCALE, 1)})
