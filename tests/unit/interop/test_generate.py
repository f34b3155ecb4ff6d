"""`generate` with its cache writes what it writes without one."""

from __future__ import annotations

import pytest
import torch

from tests.unit.interop.twins import GPT2, PYTHIA, cache_of, ids, padded, twin

pytest.importorskip("transformers")

WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
}


def generated(model, tokens, **options):
    torch.manual_seed(4)
    return model.generate(tokens, max_new_tokens=14, pad_token_id=0, eos_token_id=96, **options)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("backbone", [GPT2, PYTHIA], ids=["gpt2", "pythia"])
def test_the_cache_changes_no_text(backbone, way):
    """Unequal prompts, padded on the left as transformers wants it."""
    model = twin(**backbone)
    tokens, mask = padded([ids(1, length, length)[0] + 1 for length in (7, 4)], "left")
    tokens = tokens.clamp(max=95)
    with_cache = generated(model, tokens, attention_mask=mask, **way)
    assert with_cache.shape[1] > 12
    assert torch.equal(with_cache, generated(model, tokens, attention_mask=mask, use_cache=False, **way))


def test_a_text_alone_is_the_text_in_a_batch():
    model, rows = twin(), [ids(1, length, length)[0].clamp(1, 95) for length in (7, 4)]
    tokens, mask = padded(rows, "left")
    together = generated(model, tokens, attention_mask=mask)
    for b, row in enumerate(rows):
        alone = generated(model, row[None])[0, len(row) :]
        assert torch.equal(together[b, 7 : 7 + len(alone)], alone)


def test_a_cache_is_continued():
    """As for a conversation: the cache of the first answer, then the whole text so far and more."""
    model, tokens = twin(), ids(1, 6).clamp(1, 95)
    first = model.generate(tokens, max_new_tokens=5, pad_token_id=0, return_dict_in_generate=True)
    longer = torch.cat((first.sequences, ids(1, 3, 1)), dim=1)
    name = "cache" if "cache" in first else "past_key_values"
    assert cache_of(first).get_seq_length() == 10
    continued = generated(model, longer, **{name: cache_of(first)})
    assert torch.equal(continued, generated(model, longer, use_cache=False))


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant_model": True}], ids=lambda o: [*o][0])
def test_assisted_decoding_is_refused(options):
    model = twin()
    if "assistant_model" in options:
        options = {"assistant_model": twin()}
    with pytest.raises(ValueError, match="assisted decoding: not for a ContextLM yet"):
        generated(model, ids(1, 6), **options)


def test_it_is_no_assistant_either():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=97, bos_token_id=0, eos_token_id=96, **sizes)).double().eval()
    with pytest.raises(ValueError, match="assisted decoding: a ContextLM cannot be the assistant"):
        generated(plain, ids(1, 6), assistant_model=twin())
