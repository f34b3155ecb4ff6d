"""The sceptic's switches: what replaces the prediction, and that it happens at evaluation only."""

from __future__ import annotations

import pytest
import torch

from contextlm.errors import UserError
from contextlm.model.context_control import control
from tests.small_configs import FUSIONS, small_config
from tests.unit.model.forward import logits, token_ids

PREDICTION = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1))
CONTEXT = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(2))
KINDS = ("zero", "shuffle", "random", "previous")


def test_zero():
    assert torch.equal(control("zero", PREDICTION, CONTEXT), torch.zeros_like(PREDICTION))


def test_shuffle_gives_every_sequence_another_ones():
    shuffled = control("shuffle", PREDICTION, CONTEXT)
    sources = []
    for row in range(4):
        assert not torch.equal(shuffled[:, row], PREDICTION[:, row])
        sources += [i for i in range(4) if torch.equal(shuffled[:, row], PREDICTION[:, i])]
    assert sorted(sources) == [0, 1, 2, 3]


def test_shuffle_refuses_a_batch_of_one():
    with pytest.raises(UserError, match="--context-control shuffle: swaps the sequences of a batch"):
        control("shuffle", PREDICTION[:, :1], CONTEXT[:, :1])


def test_random_has_the_predictions_scale_and_not_its_content():
    prediction = 7 * torch.randn(50, 4, 64)
    noise = control("random", prediction, CONTEXT)
    assert noise.std().item() == pytest.approx(7, rel=0.05)
    assert torch.nn.functional.cosine_similarity(noise.flatten(), prediction.flatten(), dim=0).abs() < 0.05


def test_previous_is_the_chunk_just_read():
    assert torch.equal(control("previous", PREDICTION, CONTEXT), CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_control_changes_evaluation_and_not_training(build, fusion, kind):
    ids = token_ids(2, 21)
    normal = build(small_config(context_fusion=fusion))
    controlled = build(small_config(context_fusion=fusion, context_control=kind))
    assert torch.equal(logits(normal.train(), ids), logits(controlled.train(), ids))
    assert not torch.equal(logits(normal.eval(), ids), logits(controlled.eval(), ids))


def test_shuffle_swaps_whole_sequences(build):
    """With the same text in every row there is nothing to swap; with different text there is."""
    normal, shuffled = build(small_config()), build(small_config(context_control="shuffle"))
    same = token_ids(1, 21).expand(3, -1)
    torch.testing.assert_close(logits(shuffled, same), logits(normal, same))
    different = token_ids(3, 21)
    assert not torch.allclose(logits(shuffled, different), logits(normal, different))


def test_a_batch_of_one_is_refused_in_the_model(build):
    with pytest.raises(UserError, match="use more"):
        logits(build(small_config(context_control="shuffle")), token_ids(1, 21))


def test_samples_of_documents_may_have_fewer_chunks():
    """Their padding is no prediction: it is neither swapped in nor counted."""
    prediction = torch.randn(3, 3, 2)
    is_chunk = torch.tensor([[True, True, True], [True, True, False], [True, False, False]]).T  # 3, 2 and 1 of 3
    padded = prediction.masked_fill(~is_chunk[..., None], 1e6)
    swapped = control("shuffle", padded, prediction, is_chunk)
    assert torch.equal(swapped[:, 0], prediction[[0, 0, 0], 2])
    assert torch.equal(swapped[:, 1], prediction[[0, 1, 2], 0])
    assert torch.equal(swapped[:, 2], prediction[[0, 1, 0], 1])
    none = is_chunk & torch.tensor([True, True, False])
    assert torch.equal(control("shuffle", padded, prediction, none)[:, 0], torch.zeros(3, 2))
    assert control("random", padded, prediction, is_chunk).abs().max() < 100
