"""Decoding with a cache gives the logits of a whole pass, whatever has been done to the cache in between.

In float64, where rounding is 1e-16: the bound leaves no room for a wrong chunk. All weights are random, the gate open.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.interop.twins import GPT2, PYTHIA, VOCAB_SIZE, cache_of, ids, padded, twin, with_cache

pytest.importorskip("transformers")

BOUND, LENGTH = 1e-10, 21
MODELS = {
    "gpt2": GPT2,
    "pythia": PYTHIA,
    "norm_add, no shift": GPT2 | {"context_fusion": "norm_add", "context_shift": False},
    "add, pooling alone": GPT2 | {"context_fusion": "add", "context_predictor_layers": 0, "context_pooling": "last"},
    "w3 before layer 0": PYTHIA | {"context_chunk_size": 3, "context_encoder_layers": 0, "context_pooling": "first"},
    "w1, a gate per channel": GPT2 | {"context_chunk_size": 1, "context_fusion": "gated_channel"},
    "plain": GPT2 | {"context_chunk_size": 0, "parallel_residual": True},
}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=[*MODELS.values()], ids=[*MODELS])
def model(request) -> Any:
    return twin(**request.param)


def distance(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


def continued(model: torch.nn.Module, cache, rest_BS: Tensor, mask: Tensor | None = None, step: int = 1) -> Tensor:
    """Logits of the tokens in `rest_BS`, given to the cache a few at a time."""
    found = []
    for first in range(0, rest_BS.shape[1], step):
        new = rest_BS[:, first : first + step]
        if mask is not None:
            mask = torch.cat((mask, torch.ones_like(new)), dim=1)
        found.append(model(new, attention_mask=mask, **with_cache(cache)).logits)
    return torch.cat(found, dim=1)


def test_every_length_of_the_prompt(model):
    tokens = ids(2, LENGTH)
    whole = model(tokens, use_cache=False).logits
    for prompt in range(1, 10):
        for step in (1, 3):
            first = model(tokens[:, :prompt], use_cache=True)
            assert distance(first.logits, whole[:, :prompt]) < BOUND
            rest = continued(model, cache_of(first), tokens[:, prompt:], step=step)
            assert distance(rest, whole[:, prompt:]) < BOUND, (prompt, step)


@pytest.mark.parametrize("side", ["left", "right"])
def test_unequal_lengths_in_one_batch(model, side):
    """Each row gives what it gives alone, padded where it may be."""
    rows, rest = [ids(1, length, length)[0] for length in (13, 8, 3, 1)], ids(4, 9)
    alone = [model(torch.cat((row, more))[None]).logits[0] for row, more in zip(rows, rest, strict=True)]
    tokens, mask = padded(rows, side)
    uncached = model(tokens, attention_mask=mask, use_cache=False).logits
    first = model(tokens, attention_mask=mask)
    more = continued(model, cache_of(first), rest, mask)
    for b, row in enumerate(rows):
        real = mask[b].bool()
        assert distance(uncached[b, real], alone[b][: len(row)]) < BOUND
        assert distance(first.logits[b, real], alone[b][: len(row)]) < BOUND
        assert distance(more[b], alone[b][len(row) :]) < BOUND, (side, b)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_alone_may_be_padded(model, side):
    row, rest = ids(1, 7)[0], ids(1, 6, 1)
    tokens, mask = padded([row, ids(1, 10)[0]], side)
    found = continued(model, cache_of(model(tokens[:1], attention_mask=mask[:1])), rest, mask[:1])
    assert distance(found, model(torch.cat((row[None], rest), dim=1)).logits[:, 7:]) < BOUND


def test_padding_in_the_middle(model):
    """Right padding, then more tokens: columns without a token lie between those with one."""
    rows, turn = [ids(1, length, length)[0] for length in (6, 3)], [ids(1, length, length)[0] for length in (2, 7)]
    first, mask = padded(rows, "right")
    second, more = padded(turn, "right")
    cache = cache_of(model(first, attention_mask=mask))
    found = model(second, attention_mask=torch.cat((mask, more), dim=1), **with_cache(cache)).logits
    for b in range(2):
        alone = model(torch.cat((rows[b], turn[b]))[None]).logits[0, len(rows[b]) :]
        assert distance(found[b, more[b].bool()], alone) < BOUND


def test_crop_to_every_length(model):
    """Unequal rows; from the end back to a column, then on with other tokens."""
    rows = [ids(1, length, length)[0] for length in (12, 7)]
    tokens, mask = padded(rows, "left")
    rest = ids(2, 6, 1)
    kept = cache_of(model(tokens, attention_mask=mask))
    for column in range(6, 12):
        for argument in (column - 12, column):  # how many to remove, or how many to keep
            cache = copy.deepcopy(kept)
            cache.crop(argument)
            found = continued(model, cache, rest, mask[:, :column])
            for b, row in enumerate(rows):
                alone = torch.cat((row[: len(row) - (12 - column)], rest[b]))[None]
                assert distance(found[b], model(alone).logits[0, -6:]) < BOUND, (column, b)
    kept.crop(-12)
    assert distance(continued(model, kept, rest), model(rest).logits) < BOUND


def test_rows_are_reordered_repeated_and_selected(model):
    rows = [ids(1, length, length)[0] for length in (10, 7, 4)]
    tokens, mask = padded(rows, "left")
    kept = cache_of(model(tokens, attention_mask=mask))
    changes = {
        (2, 0, 0): lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])),
        (0, 0, 1, 1, 2, 2): lambda cache: cache.batch_repeat_interleave(2),
        (2, 1): lambda cache: cache.batch_select_indices(torch.tensor([2, 1])),
    }
    for order, change in changes.items():
        cache = copy.deepcopy(kept)
        change(cache)
        rest = ids(len(order), 6, 2)
        found = continued(model, cache, rest, mask[list(order)])
        for b, row in enumerate(order):
            alone = torch.cat((rows[row], rest[b]))[None]
            assert distance(found[b], model(alone).logits[0, len(rows[row]) :]) < BOUND, (order, b)
    kept.reset()
    assert distance(continued(model, kept, ids(2, 6)), model(ids(2, 6)).logits) < BOUND


def test_the_predictor_runs_once_per_chunk():
    """Rows of one length step together; of unequal ones only those take part that finish a chunk."""
    model = twin()
    runs: list[tuple[int, ...]] = []
    model.model.context_head.predictor.register_forward_hook(
        lambda module, inputs, output: runs.append(tuple(output.shape[:2]))
    )
    cache = cache_of(model(ids(2, 6)))
    continued(model, cache, ids(2, 16))
    assert runs == [(2, 1)] + [(2, 1)] * 4  # after 6 tokens one chunk, then at 8, 12, 16, 20
    runs.clear()
    tokens, mask = padded([ids(1, 6)[0], ids(1, 3)[0]], "left")
    continued(model, cache_of(model(tokens, attention_mask=mask)), ids(2, 8), mask)
    assert runs == [(1, 1)] * 5
    assert len(cache.predictor) == 2 and cache.predictions.data.shape[1] >= 5


def test_memory_is_what_the_formula_says():
    model, tokens = twin(**PYTHIA), ids(2, 256)
    cache = cache_of(model(tokens))
    layers, hidden, width, predictor_layers = 3, 32, 4, 2
    numbers = sum(slots.data.numel() for slots in cache._slots())
    assert numbers == 2 * 256 * (hidden + (2 * predictor_layers + 1) * hidden // width)
    assert sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) == 2 * 256 * 2 * layers * hidden


@pytest.mark.parametrize("backbone", [GPT2, PYTHIA], ids=["gpt2", "pythia"])
def test_fp32_and_bf16(backbone):
    tokens = ids(2, LENGTH)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        model = twin(dtype, **backbone)
        whole = model(tokens, use_cache=False).logits.double()
        found = continued(model, cache_of(model(tokens[:, :7])), tokens[:, 7:]).double()
        assert distance(found, whole[:, 7:]) < bound * whole.abs().max(), dtype
        exact = twin(**backbone)(tokens).logits
        assert distance(whole, exact) < bound * exact.abs().max(), dtype


def test_16_bit_states_are_summed_in_fp32():
    """256 + 1 is 256 in bf16."""
    head = twin(torch.bfloat16).model.context_head
    tokens = torch.tensor([256.0, 1, 1, 1], dtype=torch.bfloat16).reshape(1, 1, 4, 1)
    assert head._pool(tokens).item() == torch.tensor(259 / 4).bfloat16().item()


def test_no_logit_sees_a_later_token():
    for values in MODELS.values():
        model, tokens = twin(**values), ids(1, LENGTH)
        before = model(tokens).logits
        for start in range(1, LENGTH):
            changed = tokens.clone()
            changed[:, start:] = (changed[:, start:] + 1) % VOCAB_SIZE
            after = model(changed).logits
            assert torch.equal(after[:, :start], before[:, :start]) and not torch.equal(
                after[:, start], before[:, start]
            )


@pytest.mark.parametrize("fault", ["states of other rows", "one chunk early", "a token is forgotten"])
def test_a_fault_is_noticed(fault):
    """The comparisons above can fail: each of these is far out of bounds."""
    model, tokens = twin(), ids(3, LENGTH)
    whole = model(tokens).logits
    cache = cache_of(model(tokens[:, :10]))
    if fault == "states of other rows":
        cache.states.select(torch.tensor([1, 2, 0]))
    elif fault == "one chunk early":
        cache.predictions.data = cache.predictions.data.roll(1, dims=1)
    else:
        cache.lengths = cache.lengths - 1
    assert distance(continued(model, cache, tokens[:, 10:]), whole[:, 10:]) > 1e3 * BOUND


def test_what_cannot_be_is_refused():
    from transformers import DynamicCache

    model, tokens = twin(), ids(2, 5)
    cache = cache_of(model(tokens))
    for message, arguments in {
        "a DynamicCache has no room for chunks": with_cache(DynamicCache()),
        "holds 2 rows, the input has 3": {"input_ids": ids(3, 1), **with_cache(cache)},
        "attention_mask: has shape [2, 1]; give [2, 6]": {
            "input_ids": tokens[:, :1],
            "attention_mask": torch.ones(2, 1),
            **with_cache(cache),
        },
        "70 tokens: the model has 66 positions": {"input_ids": ids(1, 70)},
        "fused attention keeps no weights": {"output_attentions": True},
        "give input_ids or inputs_embeds": {"inputs_embeds": torch.zeros(2, 5, 32)},
    }.items():
        with pytest.raises(ValueError) as error:
            model(**{"input_ids": tokens} | arguments)
        assert message in str(error.value)
