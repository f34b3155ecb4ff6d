"""The head's own equation: what the predictor is given, where it stands, and how its result is added."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contextlm.model.chunking import pool, spread
from tests.small_configs import BACKBONES, FUSIONS, small_config
from tests.unit.model.forward import logits, token_ids

LENGTH, WIDTH = 22, 4


@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no_shift"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion(build, fusion, shift):
    head = build(small_config(context_fusion=fusion, context_shift=shift)).decoder.layers[2].context_head
    hidden = torch.randn(LENGTH, 2, 64)
    with torch.no_grad():
        prediction = head.predictor(pool(hidden, WIDTH, "mean"), attention_mask=None)
        guidance = spread(prediction, LENGTH, WIDTH, shift)
        if fusion == "add":
            expected = hidden + guidance
        elif fusion == "norm_add":
            norm = head.token_norm
            expected = torch.nn.functional.layer_norm(hidden, (64,), norm.weight, norm.bias) + guidance
        else:
            assert head.gate.numel() == {"gated": 1, "gated_channel": 64}[fusion]
            expected = hidden + head.gate * guidance
        torch.testing.assert_close(head(hidden), expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_predictor_layers_only_the_norm_is_left(build, fusion):
    head = build(small_config(context_predictor_layers=0, context_fusion=fusion)).decoder.layers[2].context_head
    contexts = torch.randn(5, 2, 64)
    if fusion == "add":
        assert head.predictor is None
        return
    norm = head.predictor.final_layernorm
    with torch.no_grad():
        expected = torch.nn.functional.layer_norm(contexts, (64,), norm.weight, norm.bias)
        torch.testing.assert_close(head.predictor(contexts, attention_mask=None), expected)


@pytest.mark.parametrize("pooling", ["mean", "last", "first"])
def test_the_predictor_reads_the_pooled_chunks(build, pooling):
    head = build(small_config(context_pooling=pooling)).decoder.layers[2].context_head
    seen = []
    head.predictor.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    hidden = torch.randn(LENGTH, 2, 64)
    head(hidden)
    chunks = hidden[:20].reshape(5, WIDTH, 2, 64)
    expected = {"mean": chunks.sum(dim=1) / WIDTH, "last": chunks[:, 3], "first": chunks[:, 0]}[pooling]
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_chunks_stand_at_their_first_tokens(build, backbone):
    """RoPE: chunk k at position k w; learned positions: none of its own."""
    model = build(small_config(backbone))
    seen: dict[str, Any] = {}
    layer = model.decoder.layers[2]
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(tokens=kwargs["rotary_pos_emb"]), with_kwargs=True
    )
    layer.context_head.predictor.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(chunks=kwargs["rotary_pos_emb"]), with_kwargs=True
    )
    logits(model, token_ids(1, LENGTH))
    if backbone == "gpt2":
        assert seen == {"tokens": None, "chunks": None}
        return
    assert seen["tokens"].shape[0] == LENGTH and seen["chunks"].shape[0] == 5
    for chunk in range(5):
        assert torch.equal(seen["chunks"][chunk], seen["tokens"][chunk * WIDTH]), chunk


def test_the_predictor_is_as_wide_as_the_backbone(build):
    model = build(small_config())
    shapes = [
        {name: parameter.shape for name, parameter in layer.named_parameters()}
        for layer in (model.decoder.layers[0], model.decoder.layers[2].context_head.predictor.layers[0])
    ]
    assert shapes[0] == shapes[1]


def test_the_gate_tells_its_value_or_the_mean_of_its_channels(build):
    from contextlm.model.context_head import heads

    def told(fusion: str, value: float) -> float | None:
        (head,) = heads([build(small_config(context_fusion=fusion))])
        if hasattr(head, "gate"):
            head.gate.data.fill_(value)
            head.gate.data[::2] *= -1
        return None if (found := head.gate_value()) is None else found.item()

    assert told("gated", 0.5) == -0.5 and told("gated_channel", 0.5) == 0.5
    assert told("add", 0.5) is None and told("norm_add", 0.5) is None
    assert heads([build(small_config(context_chunk_size=0))]) == []
