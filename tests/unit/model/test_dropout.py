"""Dropout acts in training and only there."""

from __future__ import annotations

import pytest
import torch

from tests.small_configs import BACKBONES, small_config
from tests.unit.model.forward import logits, token_ids

KINDS = ("hidden_dropout", "attention_dropout")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_dropout_is_on_in_training_only(build, backbone, kind):
    ids = token_ids(2, 33)
    without = logits(build(small_config(backbone)), ids)
    model = build(small_config(backbone, **{kind: 0.3}))
    assert torch.equal(logits(model, ids), without)
    model.train()
    first, second = logits(model, ids), logits(model, ids)
    assert not torch.equal(first, without)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_dropout_by_default(build, backbone):
    ids = token_ids(2, 33)
    model = build(small_config(backbone))
    evaluated = logits(model, ids)
    assert torch.equal(logits(model.train(), ids), evaluated)


@pytest.mark.parametrize("kind", KINDS)
def test_the_predictor_drops_too(build, kind):
    model = build(small_config(**{kind: 0.3})).train()
    contexts = torch.randn(8, 2, 64)
    predictor = model.decoder.layers[2].context_head.predictor
    with torch.no_grad():
        first, second = predictor(contexts, attention_mask=None), predictor(contexts, attention_mask=None)
    assert not torch.equal(first, second)


def test_attention_dropout_keeps_the_mean(layout):
    """Probabilities are dropped at the rate given, and the rest scaled up."""
    from megatron.core.transformer.enums import AttnMaskType

    from contextlm.model.attention import ScaledDotProductAttention
    from contextlm.model.transformer_config import build_transformer_config

    config = build_transformer_config(small_config(attention_dropout=0.25))
    attention = ScaledDotProductAttention(config, 1, AttnMaskType.causal, "self").train()
    query, value = torch.zeros(64, 8, 4, 16), torch.ones(64, 8, 4, 16)
    first_token = attention(query, query, value)[0]  # one key: dropped, or scaled by 4/3
    kept, dropped = first_token[first_token != 0], first_token[first_token == 0]
    assert dropped.numel() > 0
    torch.testing.assert_close(kept, torch.full_like(kept, 4 / 3))
    assert attention(query, query, value).mean().item() == pytest.approx(1, abs=0.03)
