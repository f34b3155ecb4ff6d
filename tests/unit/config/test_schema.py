"""The tree's derived values, and that its fields say what `--help` and the checks need."""

from __future__ import annotations

import dataclasses

import pytest

from contextlm.config import parse
from contextlm.config.fields import all_fields, build
from contextlm.config.schedule_lengths import schedule_lengths
from contextlm.config.schema import Config


def test_every_field_has_a_sentence_and_a_default_within_its_own_bounds():
    for field in all_fields().values():
        assert field.help.strip().endswith("."), field.name
        assert field.choices is None or field.default in field.choices or field.optional, field.name
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert field.minimum is None or field.default >= field.minimum, field.name
            assert field.above is None or field.default > field.above, field.name


def test_the_tree_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.num_layers = 5  # type: ignore[misc]


def test_build_without_values_is_the_default_tree():
    assert build({}, None) == Config()


def test_derived_values():
    config = parse(
        "--dry-run --num-layers 6 --context-chunk-size 4 --tensor-model-parallel-size 2 --global-batch-size "
        "48 "
        "--micro-batch-size 4 --train-iters 70 --save runs/a".split(),
        {},
    ).config
    assert config.encoder_layers == 3
    assert config.data_parallel_size(8) == 4
    assert config.num_microbatches(8) == 3
    assert schedule_lengths(config).decay == 70
    assert config.output_dir == "runs/a"
    assert config.model.ffn_size == 512 and config.model.num_positions == 256
    assert config.model.padded_vocab_size(515, 2) == 768 and config.model.padded_vocab_size(50257, 1) == 50304
    assert Config().global_batch_size(8) == 8
