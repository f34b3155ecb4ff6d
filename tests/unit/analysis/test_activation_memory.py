"""Activations: the published formulas, and the peaks of the pipeline schedules.

tests/distributed/test_activation_memory.py compares with what autograd keeps.
"""

from __future__ import annotations

from typing import Any

import pytest

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.execution import Execution
from contextlm.config.schema import Config
from tests.small_configs import small_config

VOCAB_SIZE = 512
EAGER = Execution()


def configuration(**values: Any) -> Config:
    """Large enough that numbers per position do not matter beside the states of H numbers."""
    sizes = {"hidden_size": 1024, "seq_length": 512, "context_chunk_size": 0, "micro_batch_size": 2}
    return small_config(**(sizes | values))


def pipelined(stages: int, num_microbatches: int, **values: Any) -> Config:
    batch = {"micro_batch_size": 2, "global_batch_size": 2 * num_microbatches}
    return configuration(pipeline_model_parallel_size=stages, **batch, **values)


def one_layer(**values: Any) -> int:
    return sum(Activations(configuration(**values), VOCAB_SIZE, EAGER).layer().values())


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_layer_keeps_what_korthikanti_et_al_count(ranks: int) -> None:
    values = {"bf16": True, "hidden_dropout": 0.1, "tensor_model_parallel_size": ranks}
    states = 512 * 2 * 1024  # S B H
    assert one_layer(**values) == pytest.approx(states * (10 + 24 / ranks), rel=0.01)
    assert one_layer(**values, sequence_parallel=True) == pytest.approx(states * 34 / ranks, rel=0.01)
    assert one_layer(**values | {"hidden_dropout": 0.0}) == pytest.approx(states * (8 + 24 / ranks), rel=0.01)


def test_precision_and_backbone_of_a_layer() -> None:
    states = 512 * 2 * 1024
    assert one_layer(fp16=True) == one_layer(bf16=True)
    assert one_layer() == pytest.approx(2 * one_layer(bf16=True), rel=0.01)
    # One norm input serves both norms, and q and k exist rotated too.
    neox = {"parallel_residual": True, "position_embedding_type": "rope", "rotary_percent": 0.25}
    heads = {"bf16": True, "num_attention_heads": 16}
    assert one_layer(**heads, **neox) - one_layer(**heads) == pytest.approx((4 - 2) * states, rel=0.05)


def test_the_head_costs_its_layers_on_every_rank() -> None:
    values = {"bf16": True, "tensor_model_parallel_size": 2, "sequence_parallel": True}
    found = {
        (layers, fusion): Activations(
            configuration(context_chunk_size=8, context_predictor_layers=layers, context_fusion=fusion, **values),
            VOCAB_SIZE,
            EAGER,
        )
        for layers in (0, 2)
        for fusion in ("add", "gated", "norm_add")
    }
    sizes = {case: sum(sum(part.values()) for part in each.context_head()) for case, each in found.items()}
    states, chunks = 512 * 2 * 1024, 512 // 8 * 2 * 1024
    assert sizes[0, "add"] == 0
    # A predictor layer takes all chunks: 8 + 24 / t; its final norm keeps them, the gate the tokens of the rank.
    assert sizes[2, "add"] == pytest.approx(2 * chunks * (8 + 24 / 2), rel=0.01)
    assert sizes[0, "gated"] == pytest.approx(2 * chunks + 2 * states / 2, rel=0.01)
    assert sizes[2, "norm_add"] - sizes[2, "add"] == pytest.approx(2 * chunks + 2 * states / 2, rel=0.01)


def peak(config: Config, stage: int, num_microbatches: int, passing: bool = False) -> int:
    return peak_activations(config, VOCAB_SIZE, stage, num_microbatches, EAGER, passing=passing).total


@pytest.mark.parametrize("num_microbatches", [1, 2, 8])
def test_a_stage_holds_as_many_micro_batches_as_stages_follow(num_microbatches: int) -> None:
    peaks = [peak(pipelined(4, num_microbatches), stage, num_microbatches) for stage in range(4)]
    for stage in range(3):  # the last has the loss too
        assert peaks[stage] == pytest.approx(min(num_microbatches, 4 - stage) * one_layer(), rel=0.01)


def test_interleaving_costs_what_korthikanti_et_al_count() -> None:
    """The first stage holds 1 + (p - 1) / (p v) times the activations of all L layers."""
    config = pipelined(4, 16, num_layers=16, num_virtual_stages_per_pipeline_rank=2)
    expected = 16 * one_layer() * (1 + 3 / (4 * 2))
    assert peak(config, 0, 16) == pytest.approx(expected, rel=0.01)
    plain = pipelined(4, 16, num_layers=16)
    assert peak(plain, 0, 16) == pytest.approx(16 * one_layer(), rel=0.01)


def test_full_recomputation_keeps_inputs_and_one_group() -> None:
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 2}
    config = pipelined(2, 4, num_layers=16, bf16=True, **full)
    inputs = 512 * 2 * 1024 * 2
    # Two micro-batches of four groups, and within one more of the inputs of a layer.
    expected = 2 * 4 * inputs + 2 * one_layer(bf16=True) - inputs
    assert peak(config, 0, 4) == pytest.approx(expected, rel=0.01)
    block = pipelined(2, 4, num_layers=16, bf16=True, **full | {"recompute_method": "block"})
    expected = 2 * (2 * inputs + 6 * one_layer(bf16=True))
    assert peak(block, 0, 4) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("ranks", "sequence_parallel"), [(1, False), (2, False), (2, True)])
def test_gradients_of_one_layer_are_there_in_passing(ranks: int, sequence_parallel: bool) -> None:
    values = {"tensor_model_parallel_size": ranks, "sequence_parallel": sequence_parallel, "bf16": True}
    config = pipelined(2, 2, **values)
    states = 512 * 2 * 1024 * 2
    stream = states // ranks if sequence_parallel else states
    gathered = states if sequence_parallel else 0
    matrix = 4 * 1024**2 * 2 // ranks
    # Of the layer's output, of the input of its last product, and of that product's matrix.
    assert peak(config, 0, 2, passing=True) - peak(config, 0, 2) == stream + gathered + 4 * states // ranks + matrix


def test_16_bit_logits_stand_beside_their_softmax_on_a_cpu() -> None:
    # In fp32 the output layer's product has more, with the gradients of its input and of its matrix.
    for precision, num_bytes, others in (({"bf16": True}, 4 + 2, 0), ({}, 4, 1024 * 4)):
        config = configuration(
            num_layers=1, make_vocab_size_divisible_by=1, untie_embeddings_and_output_weights=True, **precision
        )
        per_id = [peak_activations(config, size, 0, 1, Execution(on_cuda=False)) for size in (50_000, 50_001)]
        assert per_id[0].logits == 512 * 2 * num_bytes * 50_000
        assert per_id[1].total - per_id[0].total == 512 * 2 * num_bytes + others


# MiB that the allocator held at most for a micro-batch of tests/gpu/test_activation_memory.py on an H100, 2026-11-25.
# In attention's backward pass cuDNN takes 64 of them for one S x S matrix a sample and head.
MEASURED = {
    ("gpt2", None): 1184.8,
    ("gpt2", 1): 202.9,
    ("gpt2", 4): 383.5,
    ("pythia", None): 1254.2,
    ("pythia", 1): 209.5,
    ("pythia", 4): 401.4,
}


@pytest.mark.parametrize(("backbone", "recompute"), MEASURED)
def test_a_gpu_held_what_the_formula_says(backbone: str, recompute: int | None) -> None:
    sizes = {"num_layers": 16, "hidden_size": 512, "num_attention_heads": 8, "seq_length": 1024, "micro_batch_size": 4}
    kind = {"bf16": True, "hidden_dropout": 0.1, "attention_dropout": 0.1}
    full = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": recompute}
    config = small_config(backbone, **sizes, **kind, **(full if recompute else {}))
    measured = MEASURED[backbone, recompute] * 2**20
    assert peak_activations(config, VOCAB_SIZE, 0, 1, EAGER).total == pytest.approx(measured, rel=0.06)


def test_the_workspace_of_attention_has_a_limit() -> None:
    """Up to it cuDNN's S x S matrices count; beyond, the fp32 sums of q's gradient."""
    layer = {"num_layers": 1, "bf16": True, "num_attention_heads": 16}
    tables = [Activations(configuration(seq_length=length, **layer), VOCAB_SIZE, EAGER) for length in (2048, 4096)]
    short, long = (each.attention_backward for each in tables)
    states = 2048 * 2 * 1024 * 2
    assert short == 5 * states + 2 * 2 * 16 * 2048**2 and long == 2 * 5 * states + 2 * 2 * states
