"""Presets hold the published sizes and nothing that belongs to a machine."""

from __future__ import annotations

import pytest

from contextlm.config.fields import all_fields
from contextlm.config.presets import preset, preset_names


def test_names():
    gpt2 = ["tiny", "124m", "355m", "774m", "1.5b"]
    pythia = ["tiny", "70m", "160m", "410m", "1b", "1.4b"]
    plain = {f"gpt2-{size}" for size in gpt2} | {f"pythia-{size}" for size in pythia}
    assert set(preset_names()) == plain | {f"contextlm-{name}" for name in plain}
    assert len(preset_names()) == 22


@pytest.mark.parametrize("name", preset_names())
def test_values_are_fields_and_not_precision_batch_or_length(name):
    fields = all_fields()
    for section, values in preset(name).items():
        assert section in ("model", "optimizer", "context")
        assert {fields[field].section for field in values} == {section}


@pytest.mark.parametrize(
    ("name", "sizes", "lr", "weight_decay"),
    [
        ("gpt2-124m", (12, 768, 12, 1024, 50257), 6e-4, 0.1),
        ("gpt2-1.5b", (48, 1600, 25, 1024, 50257), 2e-4, 0.1),
        ("pythia-70m", (6, 512, 8, 2048, 50304), 1e-3, 0.01),
        ("pythia-410m", (24, 1024, 16, 2048, 50304), 3e-4, 0.1),
        ("pythia-1.4b", (24, 2048, 16, 2048, 50304), 2e-4, 0.01),
        ("gpt2-tiny", (4, 128, 4, 256, None), 1e-3, 0.1),
    ],
)
def test_published_settings(name, sizes, lr, weight_decay):
    model, optimizer = preset(name)["model"], preset(name)["optimizer"]
    names = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "vocab_size")
    assert tuple(model[key] for key in names) == sizes
    assert optimizer["lr"] == lr and optimizer["weight_decay"] == weight_decay
    assert optimizer["min_lr"] == pytest.approx(lr / 10, rel=1e-12)


def test_contextlm_is_the_plain_model_with_chunks_of_four():
    with_head = preset("contextlm-pythia-1b")
    assert with_head.pop("context") == {"context_chunk_size": 4}
    assert with_head == preset("pythia-1b")
    assert with_head["model"]["rotary_percent"] == 0.25 and with_head["model"]["parallel_residual"] is True
