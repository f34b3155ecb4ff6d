"""Memory per rank: the shares of all ranks make up the model."""

from __future__ import annotations

import pytest

from contextlm.analysis.memory import LIBRARY_WORKSPACES, rank_memory, stage_parameters
from contextlm.analysis.parameters import count_parameters
from contextlm.config import Config, parse


def configuration(line: str) -> Config:
    return parse(["--dry-run", *line.split()], {}).config


@pytest.mark.parametrize("model", ["contextlm-gpt2-tiny", "contextlm-pythia-tiny"])
def test_one_rank_holds_the_model(model):
    config = configuration(f"--model {model}")
    assert stage_parameters(config, 512, 0) == count_parameters(config, 512).total


def test_stages_add_up_and_a_tied_output_layer_is_a_copy():
    split = "--pipeline-model-parallel-size 4"
    pythia = configuration(f"--model contextlm-pythia-tiny {split}")
    assert sum(stage_parameters(pythia, 512, stage) for stage in range(4)) == count_parameters(pythia, 512).total
    gpt2 = configuration(f"--model contextlm-gpt2-tiny {split}")
    copies = sum(stage_parameters(gpt2, 512, stage) for stage in range(4)) - count_parameters(gpt2, 512).total
    assert copies == 512 * 128


def test_the_head_sits_with_its_layer():
    for encoder_layers, stage in ((0, 0), (1, 0), (2, 1), (3, 1)):
        line = f"--pipeline-model-parallel-size 2 --context-encoder-layers {encoder_layers} --model "
        with_head, plain = configuration(line + "contextlm-gpt2-tiny"), configuration(line + "gpt2-tiny")
        extra = [stage_parameters(with_head, 512, s) - stage_parameters(plain, 512, s) for s in (0, 1)]
        assert extra[stage] == count_parameters(with_head, 512).context_head and extra[1 - stage] == 0


def test_tensor_parallel_divides_matrices_and_pads_the_vocabulary():
    config = configuration("--model gpt2-tiny --tensor-model-parallel-size 2")
    hidden = 128
    matrices = 4 * (12 * hidden**2 + 7 * hidden) // 2
    whole = 4 * 6 * hidden + 256 * hidden + 2 * hidden
    assert stage_parameters(config, 515, 0) == matrices + whole + 768 // 2 * hidden


def test_uneven_and_interleaved_pipelines_add_up():
    for split in (
        "--pipeline-model-parallel-size 3 --decoder-first-pipeline-num-layers 1 --decoder-last-pipeline-num-layers 1",
        "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 2",
    ):
        config = configuration(f"--model contextlm-pythia-tiny --context-encoder-layers 1 {split}")
        stages = range(config.parallel.pipeline_model_parallel_size)
        counts = count_parameters(config, 512)
        held = [stage_parameters(config, 512, stage) for stage in stages]
        assert sum(held) == counts.total
        # Layer 1 is on stage 1 of both: in the middle of an uneven pipeline, in stage 1's first chunk.
        plain = configuration(f"--model pythia-tiny {split}")
        assert held[1] - stage_parameters(plain, 512, 1) == counts.context_head


def test_bytes_by_precision_and_data_parallel_size():
    config = configuration("--model gpt2-tiny --compile off")
    count = stage_parameters(config, 512, 0)
    assert rank_memory(config, 512, 0, 4)[:3] == (4 * count, 4 * count, 2 * count)
    for precision in ("--bf16", "--fp16"):
        low = rank_memory(
            configuration(f"--model gpt2-tiny {precision} --compile off --global-batch-size 2"), 512, 0, 1
        )
        assert low[:3] == (2 * count, 4 * count, 12 * count)
        assert low.total == 18 * count + low.activations + low.logits + LIBRARY_WORKSPACES


def test_bytes_by_type_of_gradients_and_optimizer():
    count = stage_parameters(configuration("--model gpt2-tiny"), 512, 0)
    rounded = configuration("--model gpt2-tiny --bf16 --compile off --no-accumulate-allreduce-grads-in-fp32")
    assert rank_memory(rounded, 512, 0, 4)[:3] == (2 * count, 2 * count, 3 * count)
    alone = configuration("--model gpt2-tiny --bf16 --compile off --no-use-distributed-optimizer")
    assert rank_memory(alone, 512, 0, 4)[:3] == (2 * count, 4 * count, 12 * count)


def test_activations_of_the_micro_batches_of_one_data_parallel_rank():
    line = "--model gpt2-tiny --pipeline-model-parallel-size 2 --micro-batch-size 2 --global-batch-size 8"
    activations = [rank_memory(configuration(line), 512, 0, world_size).activations for world_size in (2, 4, 8)]
    # Of 4, 2 and 1 micro-batches, two stages have at most two under way.
    assert activations[0] == activations[1] > 1.8 * activations[2]
