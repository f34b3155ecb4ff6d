"""Parameter counts: Hugging Face's for the plain models, docs/method.md's for the head."""

from __future__ import annotations

import dataclasses

import pytest

from contextlm.analysis.parameters import count_parameters
from contextlm.config import Config, parse
from contextlm.config.presets import preset_names

PLAIN = [name for name in preset_names() if not name.startswith("contextlm-")]


def configuration(name: str, *flags: str) -> Config:
    return parse(["--dry-run", "--model", name, *flags], {}).config


def hugging_face_parameters(config: Config, vocab_size: int) -> int:
    """The transformers model of the same sizes, built without memory."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = config.model
    with torch.device("meta"):
        if model.position_embedding_type == "learned_absolute":
            built = transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    vocab_size=vocab_size,
                    n_positions=model.seq_length,
                    n_embd=model.hidden_size,
                    n_layer=model.num_layers,
                    n_head=model.num_attention_heads,
                )
            )
        else:
            built = transformers.GPTNeoXForCausalLM(
                transformers.GPTNeoXConfig(
                    vocab_size=vocab_size,
                    hidden_size=model.hidden_size,
                    num_hidden_layers=model.num_layers,
                    num_attention_heads=model.num_attention_heads,
                    intermediate_size=4 * model.hidden_size,
                    max_position_embeddings=model.seq_length,
                    tie_word_embeddings=False,
                )
            )
    return built.num_parameters()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_models_count_as_hugging_face_does(name):
    config = configuration(name)
    vocab_size = config.model.vocab_size or 515
    assert count_parameters(config, vocab_size).total == hugging_face_parameters(config, vocab_size)


@pytest.mark.parametrize(
    ("size", "millions", "percent"),
    [
        ("gpt2-124m", 14.2, 11.4),
        ("gpt2-355m", 25.2, 7.1),
        ("gpt2-774m", 39.4, 5.1),
        ("gpt2-1.5b", 61.5, 3.9),
        ("pythia-70m", 6.3, 9.0),
        ("pythia-160m", 14.2, 8.7),
        ("pythia-410m", 25.2, 6.2),
        ("pythia-1b", 100.7, 10.0),
        ("pythia-1.4b", 100.7, 7.1),
    ],
)
def test_the_head_adds_what_the_method_says(size, millions, percent):
    config = configuration(f"contextlm-{size}")
    counts = count_parameters(config, config.model.vocab_size)
    plain = count_parameters(configuration(size), config.model.vocab_size)
    assert plain.context_head == 0
    assert counts.total - plain.total == counts.context_head
    assert counts.context_head / 1e6 == pytest.approx(millions, abs=0.05)
    assert 100 * counts.context_head / plain.total == pytest.approx(percent, abs=0.051)


@pytest.mark.parametrize("layers", [0, 1, 2, 8])
def test_head_by_fusion(layers):
    hidden = 128
    beyond = {"gated": 2 * hidden + 1, "gated_channel": 3 * hidden, "add": 0, "norm_add": 4 * hidden}
    for fusion, extra in beyond.items():
        flags = ("--context-fusion", fusion, "--context-predictor-layers", str(layers))
        counts = count_parameters(configuration("contextlm-gpt2-tiny", *flags), 515)
        assert counts.context_head == layers * (12 * hidden**2 + 13 * hidden) + extra, fusion


def test_ffn_positions_and_output_layer_follow_the_configuration():
    config = configuration("gpt2-tiny")
    wide = dataclasses.replace(config.model, ffn_hidden_size=300, max_position_embeddings=400)
    counts = count_parameters(dataclasses.replace(config, model=wide), 515)
    assert counts.positions == 400 * 128 and counts.output_layer == 0 and counts.embedding == 515 * 128
    assert counts.layers == 4 * (4 * 128 * 128 + 4 * 128 + 2 * 128 * 300 + 300 + 128 + 4 * 128)
    assert count_parameters(configuration("pythia-tiny"), 515).output_layer == 515 * 128
