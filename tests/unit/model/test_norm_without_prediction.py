"""The control of norm_add: a chunk longer than the sample leaves the plain model with the same norm in the middle."""

from __future__ import annotations

from typing import Any

import torch

from contextlm.analysis.flops import forward_flops_per_token
from contextlm.analysis.parameters import count_parameters
from tests.small_configs import small_config
from tests.unit.model.forward import logits, run, token_ids

LENGTH = 66
NORM_ALONE = {"context_fusion": "norm_add", "context_chunk_size": LENGTH + 1, "context_predictor_layers": 0}


def with_norm_in_the_middle(build, model: Any) -> torch.nn.Module:
    """A plain model of the same weights, whose layer 2 reads the norm of its input."""
    plain = build(small_config(context_chunk_size=0))
    weights = {name: value for name, value in model.state_dict().items() if "context_head" not in name}
    assert not plain.load_state_dict(weights, strict=False).missing_keys
    norm = model.decoder.layers[2].context_head.token_norm

    def normed(layer, args, kwargs):
        hidden = kwargs.pop("hidden_states")
        return args, kwargs | {"hidden_states": torch.nn.functional.layer_norm(hidden, (64,), norm.weight, norm.bias)}

    plain.decoder.layers[2].register_forward_pre_hook(normed, with_kwargs=True)
    return plain


def test_it_is_the_plain_model_with_a_norm(build):
    ids = token_ids(2, LENGTH)
    alone = build(small_config(**NORM_ALONE))
    assert torch.equal(logits(alone, ids), logits(with_norm_in_the_middle(build, alone), ids))
    # The control: with complete chunks it is not.
    head = build(small_config(**NORM_ALONE | {"context_chunk_size": 4}))
    assert not torch.allclose(logits(head, ids), logits(with_norm_in_the_middle(build, head), ids), atol=1e-3)


def test_the_predictors_norm_is_idle(build):
    model = build(small_config(**NORM_ALONE))
    head = model.decoder.layers[2].context_head
    run(model, token_ids(2, LENGTH), token_ids(2, LENGTH)).mean().backward()
    assert [name for name, weight in head.named_parameters() if weight.grad is None] == [
        "predictor.final_layernorm.weight",
        "predictor.final_layernorm.bias",
    ]
    assert head.token_norm.weight.grad.abs().sum() > 0


def test_it_costs_two_norms_and_no_flops():
    alone, plain = small_config(**NORM_ALONE), small_config(context_chunk_size=0)
    assert count_parameters(alone, 515).total - count_parameters(plain, 515).total == 2 * 2 * 64
    assert forward_flops_per_token(alone, 515) == forward_flops_per_token(plain, 515)
