"""No logit sees a later token, for every choice of the method; and the same check finds a leak.

All weights are random and the gate is open: on fresh weights the head is invisible and nothing is proved.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import Tensor

from contextlm.model import chunking
from tests.small_configs import FUSIONS, VOCAB_SIZE, small_config
from tests.unit.model.forward import logits, token_ids

LENGTH = 21  # odd: no chunk size but 1 and 3 divides it, and the trailing tokens differ
CHOICES = {
    "context_chunk_size": (1, 2, 3, 4, 8),
    "context_fusion": FUSIONS,
    "context_predictor_layers": (0, 1, 2),
    "context_encoder_layers": (0, 2, 3),
    "context_pooling": ("mean", "last", "first"),
    "backbone": ("gpt2", "pythia"),
    "context_shift": (True, False),
}


def pairs(row: tuple) -> set[tuple]:
    """The pairs of (choice, value) that a row holds."""
    return set(itertools.combinations(enumerate(row), 2))


@functools.cache
def pairwise() -> list[dict]:
    """Few rows that hold every pair of values of any two choices: each the one that adds most new pairs."""
    candidates = list(itertools.product(*CHOICES.values()))
    missing = set().union(*map(pairs, candidates))
    rows = []
    while missing:
        best = max(candidates, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        rows.append(dict(zip(CHOICES, best, strict=True)))
    return rows


def name(row: dict) -> str:
    return "-".join(
        [
            row["backbone"],
            f"w{row['context_chunk_size']}",
            row["context_fusion"],
            f"N{row['context_predictor_layers']}",
            f"E{row['context_encoder_layers']}",
            row["context_pooling"],
            "shift" if row["context_shift"] else "no_shift",
        ]
    )


def leaks(model: torch.nn.Module, length: int = LENGTH) -> list[int]:
    """Positions s of which a change of the tokens from s on shows in a logit before s.

    Also demands that the change shows from s on: else the comparison would prove nothing.
    """
    ids = token_ids(2, length)
    before = logits(model, ids)
    found = []
    for start in range(1, length):
        changed = ids.clone()
        changed[:, start:] = (changed[:, start:] + 1 + start) % VOCAB_SIZE
        after = logits(model, changed)
        assert not torch.equal(after[:, start:], before[:, start:])
        if not torch.equal(after[:, :start], before[:, :start]):
            found.append(start)
    return found


def one_chunk_early(
    prediction_CBH: Tensor, sequence_length: int, chunk_size: int, shift: bool, first_token: int
) -> Tensor:
    """The classic mistake: token t receives prediction j(t) + 1."""
    assert first_token == 0
    length = sequence_length + chunk_size
    one_more = torch.cat((prediction_CBH, torch.zeros_like(prediction_CBH[:1])))
    return chunking.spread(one_more, length, chunk_size, shift)[chunk_size:]


@pytest.mark.parametrize("row", pairwise(), ids=name)
def test_no_logit_sees_a_later_token(build, row):
    """Every s, and so every phase s mod w."""
    assert leaks(build(small_config(**row))) == []


@pytest.mark.parametrize("chunk_size", CHOICES["context_chunk_size"], ids=lambda w: f"w{w}")
@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_alignment_off_by_one_is_found(build, monkeypatch, fusion, chunk_size):
    from contextlm.model import context_head

    monkeypatch.setattr(context_head, "spread", one_chunk_early)
    for backbone in CHOICES["backbone"]:
        config = small_config(backbone, context_chunk_size=chunk_size, context_fusion=fusion)
        found = leaks(build(config))
        # Prediction j(t) + 1 has read on to the end of the chunk that t + 1 is in. Tokens that no complete
        # chunk holds cannot leak.
        assert found == list(range(1, LENGTH // chunk_size * chunk_size)), backbone


def test_a_closed_gate_would_hide_a_leak(build, monkeypatch):
    """Why these proofs need random weights: at a = 0 the off-by-one cannot be seen."""
    from contextlm.model import context_head

    monkeypatch.setattr(context_head, "spread", one_chunk_early)
    model = build(small_config())
    assert leaks(model)
    with torch.no_grad():
        model.decoder.layers[2].context_head.gate.zero_()
    assert leaks(model) == []


@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no_shift"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_context_reaches_exactly_the_guided_tokens(build, fusion, shift):
    """Without it the logits of the first chunk stay and all others change."""
    config = {"context_fusion": fusion, "context_shift": shift}
    with_context = logits(build(small_config(**config)), token_ids(2, LENGTH))
    without = logits(build(small_config(**config, context_control="zero")), token_ids(2, LENGTH))
    changed = (with_context != without).any(dim=-1).all(dim=0).tolist()
    num_without = 3 if shift else 4
    assert changed == [False] * num_without + [True] * (LENGTH - num_without)
    assert torch.equal(with_context[:, :num_without], without[:, :num_without])


def test_the_rows_hold_every_pair():
    rows = pairwise()
    assert len(rows) < 40
    for first, second in itertools.combinations(CHOICES, 2):
        held = {(row[first], row[second]) for row in rows}
        assert held == set(itertools.product(CHOICES[first], CHOICES[second]))
