"""Attention within documents: what torch's CUDA kernel is asked for, and what the mask says, are the same.

The kernel needs a GPU (tests/gpu/test_documents.py); here a loop over what it is given stands in for it.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from contextlm.model import varlen_attention
from contextlm.model.documents import Documents, bounds_of
from tests.unit.model.test_attention import attention

EOD = 3


def loop(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, keys: Tensor, longest: int, *_: int, **how
) -> Tensor:
    """Causal attention within each document of [tokens, heads, D]."""
    assert how == {"scale": None, "window_size": (-1, 0)} and torch.equal(bounds, keys) and bounds.dtype == torch.int32
    assert bounds[0] == 0 and bounds[-1] == len(query) and bounds.diff().max() <= longest
    outputs = []
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        q, k, v = (x[begin:end].transpose(0, 1)[None] for x in (query, key, value))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        outputs.append(attended[0].transpose(0, 1))
    return torch.cat(outputs)


def test_the_kernel_is_asked_for_what_the_mask_says(layout, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(8, (3, 20), generator=torch.Generator().manual_seed(0))
    states = list(torch.randn(3, 20, 3, 4, 16))
    masked = Documents.of(tokens, EOD, isolated=True)
    bounded = Documents.of(tokens, EOD, isolated=True, bounds=bounds_of(tokens, EOD))
    expected = attention()(*states, packed_seq_params=masked)
    assert not torch.allclose(expected, attention()(*states))
    monkeypatch.setattr(varlen_attention, "kernel", lambda: loop)
    torch.testing.assert_close(varlen_attention.attend(states[0], states[1], states[2], bounded, None), expected)


def test_this_torchs_kernel_takes_these_arguments() -> None:
    kernel = varlen_attention.kernel()
    if kernel is None:
        pytest.skip(f"torch {torch.__version__} has no such kernel")
    inspect.signature(kernel).bind(*"qkv", "bounds", "bounds", 8, 8, scale=None, window_size=(-1, 0))


def test_where_it_is_not_offered_there_is_the_mask() -> None:
    tokens = torch.tensor([[1, EOD, 2]])
    states = torch.randn(3, 1, 2, 16, dtype=torch.bfloat16)
    bounds = bounds_of(tokens, EOD)
    assert not varlen_attention.is_offered(states, Documents.of(tokens, EOD, isolated=True), 0.0)
    assert not varlen_attention.is_offered(states, Documents.of(tokens, EOD, True, bounds), 0.1)
    assert not varlen_attention.is_offered(states.float(), Documents.of(tokens, EOD, True, bounds), 0.0)


def test_whatever_the_backend_attention_within_documents_is_ours() -> None:
    from contextlm.model.attention import ScaledDotProductAttention
    from contextlm.model.backends import TorchSpecProvider
    from contextlm.model.builder import layer_spec

    class Other(TorchSpecProvider):
        def core_attention(self) -> type:
            return int

    for within_documents, expected in ((False, int), (True, ScaledDotProductAttention)):
        spec = layer_spec(Other(), False, within_documents)
        assert spec.submodules.self_attention.submodules.core_attention is expected
