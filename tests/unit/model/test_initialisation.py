"""Fresh weights have the spread that each family's papers give, matrix by matrix."""

from __future__ import annotations

import math

import pytest
import torch

from tests.small_configs import small_config

HIDDEN, LAYERS = 128, 4
SMALL_INIT = math.sqrt(2 / (5 * HIDDEN))
WANG_INIT = 2 / (LAYERS * math.sqrt(HIDDEN))
RESIDUAL = ("linear_proj.weight", "linear_fc2.weight")


def expected_std(backbone: str, name: str) -> float:
    """Standard deviation of a matrix's initial weights."""
    into_residual_stream = name.endswith(RESIDUAL)
    if backbone == "gpt2":
        return 0.02 / math.sqrt(2 * LAYERS) if into_residual_stream else 0.02
    return WANG_INIT if into_residual_stream else SMALL_INIT


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
def test_standard_deviations(build, backbone):
    model = build(small_config(backbone, hidden_size=HIDDEN, context_fusion="norm_add"), fresh=True)
    matrices = {name: parameter for name, parameter in model.named_parameters() if parameter.dim() == 2}
    kinds = {name.rsplit(".", 2)[1] for name in matrices}
    assert {"word_embeddings", "linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"} <= kinds
    assert any("context_head.predictor" in name for name in matrices)
    for name, matrix in matrices.items():
        std, count = expected_std(backbone, name), matrix.numel()
        # Five standard errors of an estimated standard deviation.
        assert matrix.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count)), name
        assert abs(matrix.mean().item()) < 5 * std / math.sqrt(count), name


def test_a_given_standard_deviation(build):
    model = build(small_config(init_method_std=0.1), fresh=True)
    layer = model.decoder.layers[0]
    assert layer.mlp.linear_fc1.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert layer.mlp.linear_fc2.weight.std().item() == pytest.approx(0.1 / math.sqrt(8), rel=0.05)


def test_biases_norms_and_gate(build):
    for fusion in ("gated", "gated_channel", "norm_add"):
        model = build(small_config(context_fusion=fusion), fresh=True)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                is_gain = "norm" in name and name.endswith("weight")
                assert torch.equal(parameter, torch.full_like(parameter, float(is_gain))), name


@pytest.mark.parametrize(("fusion", "shape"), [("gated", (1,)), ("gated_channel", (64,))])
def test_gate_shape(build, fusion, shape):
    head = build(small_config(context_fusion=fusion)).decoder.layers[2].context_head
    assert head.gate.shape == shape


@pytest.mark.parametrize(
    ("fusion", "predictor_norm", "token_norm"),
    [("gated", True, False), ("gated_channel", True, False), ("add", False, False), ("norm_add", True, True)],
)
def test_norms_of_the_head(build, fusion, predictor_norm, token_norm):
    names = [name for name in build(small_config(context_fusion=fusion)).state_dict() if "context_head" in name]
    assert any("predictor.final_layernorm" in name for name in names) == predictor_norm
    assert any("token_norm" in name for name in names) == token_norm


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_number_of_predictor_layers(build, layers):
    names = build(small_config(context_predictor_layers=layers)).state_dict()
    found = {name.split("predictor.layers.")[1][0] for name in names if "predictor.layers." in name}
    assert found == {str(layer) for layer in range(layers)}


@pytest.mark.parametrize("encoder_layers", [None, 0, 3])
def test_where_the_head_sits(build, encoder_layers):
    model = build(small_config(context_encoder_layers=encoder_layers))
    carriers = [index for index, layer in enumerate(model.decoder.layers) if hasattr(layer, "context_head")]
    assert carriers == [2 if encoder_layers is None else encoder_layers]
