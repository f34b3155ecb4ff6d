"""FLOP formulas against a counter, and against docs/method.md's and published figures."""

from __future__ import annotations

import pytest

from contextlm.analysis.flops import forward_flops_per_token, layer_flops, training_flops_per_token
from contextlm.config import Config, parse


def configuration(*flags: str) -> Config:
    return parse(["--dry-run", *flags], {}).config


def test_forward_and_training_agree_with_torch_flop_counter():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = configuration("--num-layers", "2", "--hidden-size", "64", "--seq-length", "96")
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=515, n_positions=96, n_embd=64, n_layer=2, n_head=4, attn_implementation="sdpa"
        )
    )
    # The fused attention kernels of the CPU are counted as 0.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        logits = model(torch.zeros(2, 96, dtype=torch.long)).logits
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    tokens = 2 * 96
    assert forward_flops_per_token(config, 515) == pytest.approx(forward.get_total_flops() / tokens, rel=0.01)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert training_flops_per_token(config, 515) == pytest.approx(both / tokens, rel=0.01)


@pytest.mark.parametrize(
    ("size", "blocks", "whole"),
    [
        ("gpt2-124m", 3.6, 2.6),
        ("gpt2-355m", 1.9, 1.6),
        ("gpt2-774m", 1.3, 1.2),
        ("gpt2-1.5b", 0.97, 0.92),
        ("pythia-70m", 5.8, 3.2),
        ("pythia-160m", 3.2, 2.4),
        ("pythia-410m", 1.7, 1.5),
        ("pythia-1b", 2.8, 2.5),
        ("pythia-1.4b", 1.9, 1.7),
    ],
)
def test_overhead_of_the_head(size, blocks, whole):
    plain, head = configuration("--model", size), configuration("--model", f"contextlm-{size}")
    vocab_size = plain.model.vocab_size
    extra = forward_flops_per_token(head, vocab_size) - forward_flops_per_token(plain, vocab_size)
    in_blocks = plain.model.num_layers * layer_flops(plain.model, plain.model.seq_length)
    assert 100 * extra / in_blocks == pytest.approx(blocks, abs=0.051)
    assert 100 * extra / forward_flops_per_token(plain, vocab_size) == pytest.approx(whole, abs=0.051)


@pytest.mark.parametrize(
    ("size", "gigaflops"),
    [
        ("gpt2-124m", 0.860),
        ("gpt2-355m", 2.43),
        ("gpt2-774m", 5.21),
        ("gpt2-1.5b", 10.29),
        ("pythia-70m", 0.343),
        ("pythia-160m", 0.968),
        ("pythia-410m", 2.73),
        ("pythia-1b", 6.26),
        ("pythia-1.4b", 9.08),
    ],
)
def test_training_agrees_with_6n_plus_attention(size, gigaflops):
    config = configuration("--model", size)
    assert training_flops_per_token(config, config.model.vocab_size) / 1e9 == pytest.approx(gigaflops, rel=0.01)


def test_causal_half_halves_attention_only():
    config = configuration("--num-layers", "3", "--hidden-size", "64", "--seq-length", "32")
    full, half = (forward_flops_per_token(config, 515, causal_half=choice) for choice in (False, True))
    assert full - half == 3 * 2 * 64 * 32
    assert full == 3 * (24 * 64**2 + 4 * 64 * 32) + 2 * 64 * 515


def test_predictor_works_on_whole_chunks_only():
    def extra(seq_length: int) -> float:
        flags = ("--seq-length", str(seq_length), "--hidden-size", "64")
        head, plain = configuration("--context-chunk-size", "4", *flags), configuration(*flags)
        return seq_length * (forward_flops_per_token(head, 515) - forward_flops_per_token(plain, 515))

    assert extra(3) == 0
    assert extra(67) == pytest.approx(extra(64), rel=1e-9)
    assert extra(64) == pytest.approx(2 * 16 * (24 * 64**2 + 4 * 64 * 16), rel=1e-9)
