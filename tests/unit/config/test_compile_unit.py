"""What `--compile` comes to, with each option that matters to it."""

from __future__ import annotations

import pytest

from contextlm.config.compile_unit import compile_problems, compile_unit, replays
from tests.small_configs import small_config

FORBIDS = [
    {"tensor_model_parallel_size": 2},
    {"hidden_dropout": 0.1},
    {"attention_dropout": 0.1},
    {"recompute_granularity": "selective"},
    {"overlap_param_gather": True, "overlap_grad_reduce": True},
    {"reset_position_ids": True},
    {"reset_attention_mask": True},
    {"transformer_impl": "transformer_engine"},
]
BY_LAYER = [
    {"pipeline_model_parallel_size": 2},
    {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
    {"overlap_grad_reduce": True},
]


def test_one_copy_overlaps_nothing():
    config = small_config("gpt2", overlap_grad_reduce=True, compile="auto")
    assert compile_unit(config, 1, on_cuda=True) == "model" and compile_unit(config, 2, on_cuda=True) == "layer"


def test_auto_is_off_on_a_cpu_and_the_whole_model_on_cuda():
    assert compile_unit(small_config("gpt2", compile="auto"), 2, on_cuda=False) == "off"
    assert compile_unit(small_config("gpt2", compile="auto"), 2, on_cuda=True) == "model"


@pytest.mark.parametrize("values", BY_LAYER)
def test_by_layer(values):
    assert compile_unit(small_config("gpt2", **values, compile="auto"), 2, on_cuda=True) == "layer"
    assert compile_problems(small_config("gpt2", **values, compile="layer"), 2) == []
    (problem,) = compile_problems(small_config("gpt2", **values, compile="model"), 2)
    assert problem.startswith("--compile model: ") and problem.endswith("; use --compile layer")


@pytest.mark.parametrize("values", FORBIDS)
def test_not_at_all(values):
    assert compile_unit(small_config("gpt2", **values, compile="auto"), 2, on_cuda=True) == "off"
    for unit in ("layer", "model"):
        (problem,) = compile_problems(small_config("gpt2", **values, compile=unit), 2)
        assert problem.startswith(f"--compile {unit}: ") and problem.endswith("; drop that, or use --compile off")


@pytest.mark.parametrize("unit", ["off", "layer", "model"])
def test_what_is_given_is_done(unit):
    config = small_config("gpt2", compile=unit)
    assert compile_unit(config, 1, on_cuda=False) == compile_unit(config, 1, on_cuda=True) == unit
    assert compile_problems(config, 1) == []


def test_small_models_are_replayed():
    small, large = (small_config("gpt2", compile="auto", seq_length=length) for length in (66, 1_000_000_000))
    assert replays(small, 1, on_cuda=True) and not replays(small, 1, on_cuda=False)
    assert not replays(large, 1, on_cuda=True)
    assert not replays(small_config("gpt2", compile="auto", cuda_graphs="off"), 1, on_cuda=True)
    assert not replays(small_config("gpt2", compile="layer"), 1, on_cuda=True)


@pytest.mark.parametrize("values", [{"hidden_dropout": 0.1}, {"pipeline_model_parallel_size": 2}, {"compile": "off"}])
def test_only_a_whole_graph_is_replayed(values):
    (problem,) = compile_problems(small_config("gpt2", **({"compile": "auto", "cuda_graphs": "on"} | values)), 1)
    assert problem.startswith("--cuda-graphs on: needs the model as one graph, but ")
    assert compile_problems(small_config("gpt2", compile="auto", cuda_graphs="on"), 1) == []
