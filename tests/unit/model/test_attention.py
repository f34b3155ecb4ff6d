"""Attention builds no S x S tensor: memory grows with the length, not with its square."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import run, token_ids
from tests.unit.model.stock_gpt import causal_mask, stock_gpt

LENGTH = 96  # no size of the small models is 96, 64 is their width


class _SquareTensors(TorchDispatchMode):
    """Collects the operations whose results are S x S in their last two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.shape[-2:] == (LENGTH, LENGTH):
                self.found.add(str(func))
        return result


@pytest.mark.parametrize("chunk_size", [0, 4])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_and_backward_build_no_square_tensor(build, backbone, chunk_size):
    model = build(small_config(backbone, seq_length=LENGTH, context_chunk_size=chunk_size)).train()
    tokens = token_ids(2, LENGTH + 1)
    with _SquareTensors() as watch:
        run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean().backward()
    assert watch.found == set()


def test_stock_attention_builds_some(layout):
    """The watch sees what it is there for."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    config = small_config(seq_length=LENGTH, context_chunk_size=0)
    model = stock_gpt(config, layout.groups, get_gpt_layer_local_spec()).train()
    ids = token_ids(2, LENGTH)
    with _SquareTensors() as watch:
        model(ids, torch.arange(LENGTH).expand_as(ids), causal_mask(LENGTH)).mean().backward()
    assert any("softmax" in name for name in watch.found)


def attention(**values):
    """Our attention kernel as a layer of a small model builds it."""
    from megatron.core.transformer.enums import AttnMaskType

    from contextlm.model.attention import ScaledDotProductAttention
    from contextlm.model.transformer_config import build_transformer_config

    config = build_transformer_config(small_config(**values))
    return ScaledDotProductAttention(config, 1, AttnMaskType.causal, "self")


def naive(query, key, value) -> torch.Tensor:
    """Causal attention of [S, B, heads, D] by the definition, one position after the other."""
    outputs = []
    for position in range(query.shape[0]):
        scores = torch.einsum("bnd,sbnd->sbn", query[position], key[: position + 1]) * query.shape[-1] ** -0.5
        outputs.append(torch.einsum("sbn,sbnd->bnd", scores.softmax(dim=0), value[: position + 1]))
    return torch.stack(outputs).flatten(start_dim=2)


def test_attention_is_the_definition(layout):
    query, key, value = torch.randn(3, 11, 2, 4, 16)
    torch.testing.assert_close(attention()(query, key, value), naive(query, key, value))


def test_only_causal_attention_without_a_mask_is_offered(layout):
    query = torch.randn(5, 1, 4, 16)
    with pytest.raises(AssertionError):
        attention()(query, query, query, attention_mask=causal_mask(5))
