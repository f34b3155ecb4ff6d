"""Chunk size 0 is exactly megatron-core's GPT, and a fresh head leaves its backbone's numbers alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.random_weights import randomize
from tests.small_configs import BACKBONES, FUSIONS, VOCAB_SIZE, small_config
from tests.unit.model.forward import logits, run, token_ids
from tests.unit.model.stock_gpt import causal_mask, stock_gpt

LENGTH = 33
METADATA = {"non_homogeneous_layers": True}


def checkpoint_keys(model: Any) -> dict[str, str]:
    """Name of a weight in the model -> its key in a checkpoint."""
    return {name: part.key for name, part in model.sharded_state_dict(metadata=METADATA).items()}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_keys_as_a_stock_model(build, layout, backbone):
    from contextlm.model.backends import choose_backend
    from contextlm.model.builder import layer_spec

    config = small_config(backbone, context_chunk_size=0)
    spec = layer_spec(choose_backend("torch", half_precision=False), config.model.parallel_residual)
    ours, stock = build(config), stock_gpt(config, layout.groups, spec)
    shapes = [{name: value.shape for name, value in model.named_parameters()} for model in (ours, stock)]
    assert shapes[0] == shapes[1]
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert not any("context_head" in name for name in ours.state_dict())


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("encoder_layers", [0, 2, 3])
def test_backbone_keys_do_not_depend_on_the_head(build, backbone, encoder_layers):
    plain = checkpoint_keys(build(small_config(backbone, context_chunk_size=0)))
    with_head = checkpoint_keys(build(small_config(backbone, context_encoder_layers=encoder_layers)))
    backbone_part = {name: key for name, key in with_head.items() if "context_head" not in name}
    assert backbone_part == plain
    head_part = [key for name, key in with_head.items() if "context_head" in name]
    assert head_part and all(key.startswith("context_head.") for key in head_part)
    assert len(set(with_head.values())) == len(with_head)
    assert not any("_extra_state" in key for key in with_head.values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_numbers_as_megatron_cores_own_layers(build, layout, backbone):
    """Its spec has the sequential residual only, so GPT-NeoX's is set aside here (test_parity.py has it)."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    config = small_config(backbone, context_chunk_size=0, parallel_residual=False)
    ours, stock = build(config), stock_gpt(config, layout.groups, get_gpt_layer_local_spec())
    randomize(stock)
    ids = token_ids(2, LENGTH)
    positions = torch.arange(LENGTH).expand_as(ids)
    with torch.no_grad():
        expected = stock(ids, positions, causal_mask(LENGTH))[..., :VOCAB_SIZE]
    actual = logits(ours, ids)
    assert ((actual - expected).abs().max() / expected.abs().max()).item() < 1e-6


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_numbers_as_a_stock_model_of_the_same_layers(build, layout, backbone):
    """Bit for bit, gradients included."""
    from contextlm.model.backends import choose_backend
    from contextlm.model.builder import layer_spec

    config = small_config(backbone, context_chunk_size=0)
    spec = layer_spec(choose_backend("torch", half_precision=False), config.model.parallel_residual)
    ours, stock = build(config), stock_gpt(config, layout.groups, spec)
    randomize(stock)
    ids = token_ids(2, LENGTH)
    positions = torch.arange(LENGTH).expand_as(ids)
    expected = stock(ids, positions, None)[..., :VOCAB_SIZE]
    actual = run(ours, ids)[..., :VOCAB_SIZE]
    assert torch.equal(actual, expected)
    actual.square().mean().backward()
    expected.square().mean().backward()
    for (name, ours_parameter), stock_parameter in zip(ours.named_parameters(), stock.parameters(), strict=True):
        assert torch.equal(ours_parameter.grad, stock_parameter.grad), name


def share_backbone(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy the weights of a plain model into a model with a head."""
    result = target.load_state_dict(source.state_dict(), strict=False)
    assert result.unexpected_keys == [] and all("context_head" in name for name in result.missing_keys)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fusion", ["gated", "gated_channel"])
def test_a_closed_gate_leaves_the_backbone(build, backbone, fusion):
    """At initialisation, bit for bit; an open gate shows."""
    plain = build(small_config(backbone, context_chunk_size=0))
    with_head = build(small_config(backbone, context_fusion=fusion), fresh=True)
    share_backbone(plain, with_head)
    ids = token_ids(2, LENGTH)
    assert torch.equal(logits(with_head, ids), logits(plain, ids))
    with torch.no_grad():
        with_head.decoder.layers[2].context_head.gate.fill_(0.1)
    assert not torch.equal(logits(with_head, ids), logits(plain, ids))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_fewer_tokens_than_a_chunk(build, backbone, fusion):
    """No chunk is complete: the plain model, or for norm_add the plain model with a norm in its middle."""
    with_head = build(small_config(backbone, context_fusion=fusion, context_chunk_size=8))
    plain = build(small_config(backbone, context_chunk_size=0))
    share_backbone(plain, with_head)
    if fusion == "norm_add":
        norm = with_head.decoder.layers[2].context_head.token_norm
        plain.decoder.layers[2].register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"hidden_states": norm(kwargs["hidden_states"])}),
            with_kwargs=True,
        )
    for length in (1, 3, 7):
        ids = token_ids(2, length)
        assert torch.equal(logits(with_head, ids), logits(plain, ids)), length
    ids = token_ids(2, 8)
    assert not torch.equal(logits(with_head, ids), logits(plain, ids))


def test_training_on_fewer_tokens_than_a_chunk_gives_finite_gradients(build):
    model = build(small_config(context_chunk_size=8)).train()
    ids = token_ids(2, 6)
    run(model, ids[:, :-1], ids[:, 1:]).mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is None or grad.isfinite().all() for grad in gradients.values())
    assert gradients["decoder.layers.0.mlp.linear_fc1.weight"].any()


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_every_parameter_gets_a_gradient(build, chunk_size):
    model = build(small_config(context_chunk_size=chunk_size, context_fusion="norm_add")).train()
    ids = token_ids(2, LENGTH)
    run(model, ids[:, :-1], ids[:, 1:]).mean().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_stop_gradient_cuts_the_way_through_the_predictor_only(build):
    """With the fusion's own path removed, the encoder learns through the pooling or not at all."""
    gradients = {}
    for stop in (False, True):
        model = build(small_config(context_fusion="gated", context_stop_gradient=stop)).train()
        head = model.decoder.layers[2].context_head
        hidden = torch.randn(LENGTH, 2, 64, requires_grad=True)
        (head(hidden) - hidden).square().sum().backward()
        gradients[stop] = hidden.grad
        assert head.predictor.layers[0].mlp.linear_fc1.weight.grad.any()
    assert gradients[False].any()
    assert not gradients[True].any()
