"""Which layers a stage holds: the layers that megatron-core builds there, and each layer once."""

from __future__ import annotations

import itertools

import pytest

from contextlm.config.fields import build
from contextlm.config.pipeline import stage_parts, stage_sizes
from contextlm.config.pipeline_checks import pipeline_problems
from contextlm.config.schema import Config


def config(layers: int, stages: int, **division: int | None) -> Config:
    values = {"num_layers": layers, "pipeline_model_parallel_size": stages}
    values |= {name: size for name, size in division.items() if size is not None}
    return build({**values, "hidden_size": 8, "num_attention_heads": 1}, None)


FIRST, LAST = "decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"
CHUNKS, CHUNK_LAYERS = "num_virtual_stages_per_pipeline_rank", "num_layers_per_virtual_pipeline_stage"
UNEVEN = [
    config(layers, stages, **{FIRST: first, LAST: last, CHUNKS: chunks})
    for layers, stages, first, last, chunks in itertools.product(
        (2, 4, 7, 8, 12), (1, 2, 3, 4), (None, 1, 2, 4), (None, 1, 2, 4), (None, 1, 2, 3)
    )
]
GIVEN_BY_LAYERS = [
    config(layers, stages, **{CHUNK_LAYERS: per_chunk})
    for layers, stages, per_chunk in itertools.product((4, 8, 12), (1, 2, 4), (1, 2, 3, 4))
]
ALLOWED = [one for one in UNEVEN + GIVEN_BY_LAYERS if not pipeline_problems(one)]


def test_many_ways_are_allowed():
    """Of every kind, so that the tests below see it."""
    interleaved = [one for one in ALLOWED if one.num_model_chunks > 1]
    uneven = [one for one in ALLOWED if len(set(stage_sizes(one))) > 1]
    assert len(interleaved) >= 20 and len(uneven) >= 20 and len(set(interleaved) & set(uneven)) >= 5


def test_every_layer_is_on_one_stage():
    for one in ALLOWED:
        parts = [stage_parts(one, stage) for stage in range(one.parallel.pipeline_model_parallel_size)]
        assert {len(chunks) for chunks in parts} == {one.num_model_chunks}
        in_order = [layer for chunk in zip(*parts, strict=True) for part in chunk for layer in part]
        assert in_order == list(range(one.model.num_layers)), one.parallel
        assert all(part for chunks in parts for part in chunks), one.parallel


def test_megatron_core_builds_these_layers():
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    from contextlm.model.transformer_config import build_transformer_config

    for one in ALLOWED:
        theirs = build_transformer_config(one)
        for stage in range(one.parallel.pipeline_model_parallel_size):
            for chunk, part in enumerate(stage_parts(one, stage)):
                vp_stage = chunk if one.num_model_chunks > 1 else None
                start = get_transformer_layer_offset(theirs, vp_stage, stage)
                count = get_num_layers_to_build(theirs, vp_stage, stage)
                assert part == range(start, start + count), (one.parallel, stage, chunk)


def test_megatron_core_refuses_what_is_refused():
    """Or builds with a stage that holds nothing, or with fewer layers than there are: nothing is refused needlessly."""
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    from contextlm.model.transformer_config import build_transformer_config

    needless = []
    for one in UNEVEN:
        stages, chunks = one.parallel.pipeline_model_parallel_size, one.num_model_chunks
        if not pipeline_problems(one) or stages == 1:
            continue
        try:
            theirs, first = build_transformer_config(one), 0 if chunks > 1 else None
            counts = [get_num_layers_to_build(theirs, first, stage) for stage in range(stages)]
            get_transformer_layer_offset(theirs, first, stages - 1)
        except (ValueError, AssertionError, ZeroDivisionError):
            continue
        if min(counts) > 0 and sum(counts) * chunks == one.model.num_layers:
            needless.append(one.parallel)
    assert needless == []


@pytest.mark.parametrize(
    ("layers", "stages", "division", "parts"),
    [
        (8, 2, {}, [["0-3"], ["4-7"]]),
        (8, 2, {CHUNKS: 2}, [["0-1", "4-5"], ["2-3", "6-7"]]),
        (8, 2, {CHUNK_LAYERS: 1}, [["0-0", "2-2", "4-4", "6-6"], ["1-1", "3-3", "5-5", "7-7"]]),
        (8, 3, {FIRST: 2, LAST: 2}, [["0-1"], ["2-5"], ["6-7"]]),
        (8, 3, {LAST: 2}, [["0-2"], ["3-5"], ["6-7"]]),
        (8, 3, {FIRST: 2, LAST: 2, CHUNKS: 2}, [["0-0", "4-4"], ["1-2", "5-6"], ["3-3", "7-7"]]),
    ],
)
def test_examples(layers, stages, division, parts):
    shown = [
        [f"{part[0]}-{part[-1]}" for part in stage_parts(config(layers, stages, **division), stage)]
        for stage in range(stages)
    ]
    assert shown == parts
