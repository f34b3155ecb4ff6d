"""With `--reset-attention-mask` no logit sees another document, bit for bit; and packed documents are each alone.

All weights are random and the gate is open. The samples of a batch have their ends at different places, so that a
document begins in every phase of a chunk.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.small_configs import BACKBONES, FUSIONS, VOCAB_SIZE, small_config
from tests.unit.model.forward import logits, run, token_ids
from tests.unit.model.test_causality import name, pairwise

EOD = 7
LENGTH = 21
ISOLATED = {"eod": EOD, "reset_attention_mask": True}
ALL = ISOLATED | {"reset_position_ids": True}
PLAIN = [pytest.param({"backbone": backbone, "context_chunk_size": 0}, id=backbone) for backbone in BACKBONES]
MODELS = [*PLAIN, *(pytest.param(row, id=name(row)) for row in pairwise())]


def two_documents() -> tuple[Tensor, Tensor]:
    """Samples [LENGTH - 1, LENGTH], in sample i the first document ends with token i; and which tokens are its."""
    ids = token_ids(LENGTH - 1, LENGTH)
    ids[ids == EOD] += 1
    at = torch.arange(LENGTH)
    first = at <= at[: LENGTH - 1, None]
    ids[torch.arange(LENGTH - 1), torch.arange(LENGTH - 1)] = EOD
    return ids, first


def changed(ids: Tensor, where: Tensor) -> Tensor:
    """Other tokens there, but the ends stay where they are."""
    other = (ids + 1 + torch.arange(ids.shape[1])) % VOCAB_SIZE
    other[other == EOD] += 1
    return torch.where(where & (ids != EOD), other, ids)


def reached(model: torch.nn.Module, ids: Tensor, where: Tensor, **options: int) -> Tensor:
    """Which logits a change of the tokens there shows in, [B, S]."""
    return (logits(model, ids, **options) != logits(model, changed(ids, where), **options)).any(dim=-1)


@pytest.mark.parametrize("options", [ISOLATED, ALL], ids=["positions_go_on", "positions_begin_anew"])
@pytest.mark.parametrize("row", MODELS)
def test_no_logit_sees_another_document(build, row: dict, options: dict) -> None:
    model = build(small_config(**row, reset_attention_mask=True))
    ids, first = two_documents()
    forward = reached(model, ids, first, **options)
    assert not forward[~first].any()
    assert forward[1:, 0].all()  # but its own; the first sample's first document has nothing but its end
    assert not reached(model, ids, ~first, **options)[first].any()


@pytest.mark.parametrize("row", MODELS)
def test_no_logit_sees_a_later_token_of_its_document(build, row: dict) -> None:
    model = build(small_config(**row, reset_attention_mask=True))
    ids, _ = two_documents()
    before = logits(model, ids, **ALL)
    for start in range(1, LENGTH):
        later = (torch.arange(LENGTH) >= start).expand_as(ids)
        found = (logits(model, changed(ids, later), **ALL) != before).any(dim=-1)
        assert not found[:, :start].any()
        assert found[ids[:, start] != EOD, start].all()


@pytest.mark.parametrize("options", [{}, {"eod": EOD, "reset_position_ids": True}], ids=["nothing", "positions_alone"])
@pytest.mark.parametrize("row", [*PLAIN, *(pytest.param({"context_fusion": f}, id=f) for f in FUSIONS)])
def test_without_the_option_the_other_document_is_seen(build, row: dict, options: dict) -> None:
    """The checks above can fail."""
    model = build(small_config(**row, reset_position_ids=bool(options)))
    ids, first = two_documents()
    assert reached(model, ids, first, **options)[1:][~first[1:]].all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_head_that_does_not_know_the_documents_is_found(build, monkeypatch, fusion: str) -> None:
    from contextlm.model.context_head import ContextHead

    knowing = ContextHead.forward
    monkeypatch.setattr(ContextHead, "forward", lambda self, states, angles, documents: knowing(self, states, angles))
    model = build(small_config(context_fusion=fusion, reset_attention_mask=True))
    ids, first = two_documents()
    assert reached(model, ids, first, **ALL)[~first].any()


@pytest.mark.parametrize("row", MODELS)
def test_packed_documents_are_each_alone(build, row: dict) -> None:
    """One shorter than any chunk, one of whole chunks, one with trailing tokens."""
    model, lengths = build(small_config(**row, reset_attention_mask=True)), (1, 9, 3, 16, 11)
    ids = token_ids(2, sum(lengths))
    ids[ids == EOD] += 1
    for end in torch.tensor(lengths).cumsum(0)[:-1]:
        ids[:, end - 1] = EOD
    packed = logits(model, ids, **ALL).split(lengths, dim=1)
    for found, document in zip(packed, ids.split(lengths, dim=1), strict=True):
        torch.testing.assert_close(found, logits(model, document), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [0, 4])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_are_those_of_the_documents_alone(build, backbone: str, chunk_size: int) -> None:
    model = build(small_config(backbone, context_chunk_size=chunk_size, reset_attention_mask=True))
    ids, labels, lengths = token_ids(2, 24), token_ids(2, 24, seed=1), (6, 3, 15)
    ids[ids == EOD] += 1
    ids[:, [5, 8]] = EOD

    def gradients(*losses: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        sum(loss.sum() for loss in losses).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    found = gradients(run(model, ids, labels, **ALL))
    alone = zip(ids.split(lengths, dim=1), labels.split(lengths, dim=1), strict=True)
    expected = gradients(*(run(model, each, wanted.contiguous()) for each, wanted in alone))
    for parameter, gradient in expected.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(found[parameter], gradient, rtol=0, atol=1e-5 * scale, msg=parameter)


def test_positions_that_go_on_are_the_learned_ones(build) -> None:
    """Without `--reset-position-ids` a document alone stands where it stood."""
    model = build(small_config(reset_attention_mask=True))
    ids = token_ids(2, 20)
    ids[ids == EOD] += 1
    ids[:, 8] = EOD
    with torch.no_grad():
        alone = model(ids[:, 9:], torch.arange(9, 20).expand(2, -1), None)[..., :VOCAB_SIZE]
    torch.testing.assert_close(logits(model, ids, **ISOLATED)[:, 9:], alone, rtol=1e-5, atol=1e-5)
