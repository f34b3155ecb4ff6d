"""Gradients that wait for the end of the backward pass, in one graph or without buffers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import Peak, peak_activations
from contextlm.analysis.activation_segments import segments
from contextlm.analysis.execution import Execution, execution
from contextlm.analysis.memory import rank_memory, stage_parameters
from contextlm.config import Config, parse
from tests.small_configs import small_config

VOCAB_SIZE = 50_257
WHOLE = Execution(compiled="model")
ALONE = "--model contextlm-gpt2-124m --bf16 --micro-batch-size 2"


def configuration(backbone: str = "gpt2", **values: Any) -> Config:
    return small_config(backbone, **{"hidden_size": 1024, "seq_length": 512, "bf16": True} | values)


def peak(config: Config, how: Execution) -> Peak:
    return peak_activations(config, VOCAB_SIZE, 0, 1, how)


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
@pytest.mark.parametrize("fusion", ["gated_channel", "norm_add"])
def test_the_gradients_of_all_segments_are_those_of_the_weights(backbone: str, fusion: str) -> None:
    config = configuration(backbone, context_fusion=fusion)
    found = segments(Activations(config, VOCAB_SIZE, WHOLE), range(4), first=True, last=True)
    gradients = sum(segment.weights for segment in found)
    if backbone == "gpt2":  # of the tied table embedding and output layer have one each; positions are left out
        gradients -= found[0].weights
    assert gradients == pytest.approx(2 * stage_parameters(config, VOCAB_SIZE, 0), rel=0.01)


def test_of_few_tokens_the_peak_is_the_end_where_all_gradients_are() -> None:
    few, many = (configuration("pythia", micro_batch_size=size) for size in (1, 64))
    gradients = 2 * stage_parameters(few, VOCAB_SIZE, 0)
    table = 2 * 50_304 * 1024
    assert peak(few, WHOLE).waiting == pytest.approx(gradients - table, rel=0.01)  # that of the embedding is made there
    assert peak(many, WHOLE).waiting < 0.1 * gradients
    # Layer by layer they go to the buffer one after the other.
    assert peak(few, WHOLE._replace(compiled="layer")).total < 0.8 * peak(few, WHOLE).total
    assert peak(few, Execution()).waiting == 0


def test_the_logits_wait_beside_the_layers_where_the_table_is_tied() -> None:
    tied = configuration(micro_batch_size=16, context_chunk_size=0)
    untied = dataclasses.replace(tied, model=dataclasses.replace(tied.model, untie_embeddings_and_output_weights=True))
    logits = 2 * 16 * 512 * 50_304
    assert peak(tied, WHOLE).logits == logits
    inner, states, matrix, table = (
        2 * count for count in (16 * 512 * 4096, 16 * 512 * 1024, 4096 * 1024, 50_304 * 1024)
    )
    # Gradients at the last layer's last product join them; by then the final norm's input is gone, where else the
    # table's gradient would be made.
    beside = peak(tied, WHOLE).total - peak(tied, Execution()).total
    assert beside == pytest.approx(inner + matrix - table - states, abs=0.01 * logits)
    assert peak(untied, WHOLE).total <= peak(tied, WHOLE).total


def execution_of(line: str, world_size: int = 1, on_cuda: bool = True) -> Execution:
    return execution(parse(["--dry-run", *line.split()], {}).config, world_size, on_cuda)


def test_how_it_is_computed_follows_the_options() -> None:
    assert execution_of(ALONE) == Execution(compiled="model", buffered=False)
    assert execution_of(f"{ALONE} --global-batch-size 4") == execution_of(ALONE, 2) == WHOLE
    full = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    assert execution_of(f"{ALONE} {full}") == Execution(compiled="layer", buffered=False)
    assert execution_of(f"{ALONE} --compile off").compiled == "off"
    assert execution_of(ALONE, on_cuda=False) == Execution(on_cuda=False)


def test_without_buffers_gradients_are_there_only_when_they_are_made() -> None:
    one, two = (parse(["--dry-run", *f"{ALONE} --global-batch-size {size}".split()], {}).config for size in (2, 4))
    count = stage_parameters(one, VOCAB_SIZE, 0)
    alone, buffered = (rank_memory(config, VOCAB_SIZE, 0, 1) for config in (one, two))
    assert alone.gradients < 2 * count and buffered.gradients >= 4 * count
    assert buffered.total - alone.total == 4 * count


@pytest.mark.parametrize(
    "values",
    [
        {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
        {"pipeline_model_parallel_size": 2},
    ],
)
def test_what_cannot_be_one_graph_is_planned_by_layer(values: dict[str, Any]) -> None:
    """A planner tries options beside a `--compile` that does not go with them."""
    config = configuration(compile="model", **values)
    assert execution(config, 2, on_cuda=True).compiled == "layer"
    assert rank_memory(config, VOCAB_SIZE, 0, 2).total > 0
