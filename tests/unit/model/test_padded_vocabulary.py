"""Ids that do not exist take no probability from those that do."""

from __future__ import annotations

import pytest
import torch

from tests.small_configs import BACKBONES, VOCAB_SIZE, small_config
from tests.unit.model.forward import run, token_ids

PADDED = 640


@pytest.fixture(params=BACKBONES)
def model(request, build):
    return build(small_config(request.param))


def test_padded_logits_are_minus_infinity(model):
    ids = token_ids(2, 9)
    with torch.no_grad():
        logits = run(model, ids)
    assert logits.shape == (2, 9, PADDED)
    assert torch.isneginf(logits[..., VOCAB_SIZE:]).all()
    assert logits[..., :VOCAB_SIZE].isfinite().all()


def loss_and_reference(model) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's loss of each token, and torch's on the logits of real ids."""
    tokens = token_ids(2, 34)
    ids, labels = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        loss = run(model, ids, labels.contiguous())
        logits = run(model, ids)[..., :VOCAB_SIZE]
    reference = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return loss, reference


def test_the_loss_is_that_of_the_real_ids(model):
    loss, reference = loss_and_reference(model)
    torch.testing.assert_close(loss, reference)


def test_unmasked_padding_would_change_the_loss(model, monkeypatch):
    _, reference = loss_and_reference(model)
    monkeypatch.setattr(model, "_mask_padding", lambda logits: None)
    loss, _ = loss_and_reference(model)
    assert (loss > reference + 1e-3).all()


def test_gradients_are_finite_and_padding_gets_none(model):
    tokens = token_ids(2, 34)
    run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    output = (
        model.shared_embedding_or_output_weight()
        if model.share_embeddings_and_output_weights
        else model.output_layer.weight
    )
    assert not output.grad[VOCAB_SIZE:].any()
    assert output.grad[:VOCAB_SIZE].any()


def gradients(model) -> tuple[dict[str, torch.Tensor], set[str]]:
    """Of the mean loss, by the weight's name; and the names of the steps of the backward pass."""
    tokens = token_ids(2, 34)
    model.zero_grad()
    loss = run(model, tokens[:, :-1], tokens[:, 1:].contiguous()).mean()
    steps, waiting = set(), [loss.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in steps:
            steps.add(step)
            waiting += [following for following, _ in step.next_functions]
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, {step.name() for step in steps}


def test_the_mask_has_no_backward_pass_and_needs_none(model, monkeypatch):
    found, steps = gradients(model)

    def seen_by_autograd(logits: torch.Tensor) -> None:
        logits[..., VOCAB_SIZE:].fill_(float("-inf"))

    monkeypatch.setattr(model, "_mask_padding", seen_by_autograd)
    reference, steps_of_mask = gradients(model)
    assert steps_of_mask - steps == {"torch::autograd::CopySlices"}  # a copy of all logits' gradients
    assert all(torch.equal(found[name], reference[name]) for name in reference)


def test_a_vocabulary_that_needs_no_padding_is_untouched(layout):
    from contextlm.model.builder import build_model

    (model,) = build_model(small_config(), 512, layout.groups)
    model.eval()
    ids = token_ids(1, 5) % 512
    with torch.no_grad():
        logits = run(model, ids)
    assert logits.shape == (1, 5, 512) and logits.isfinite().all()
