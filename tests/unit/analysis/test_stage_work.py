"""The work of stages adds up to the model's, and waiting is that of a schedule played through."""

from __future__ import annotations

import pytest

from contextlm.analysis.flops import forward_flops_per_token
from contextlm.analysis.stage_work import balance, stage_work, step_length
from contextlm.config import Config, parse

VOCAB_SIZE = 50257
SPLITS = (
    "",
    "--pipeline-model-parallel-size 4 --context-encoder-layers 5",
    "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 3 --global-batch-size 2",
    "--pipeline-model-parallel-size 5 --decoder-first-pipeline-num-layers 2 --decoder-last-pipeline-num-layers 1",
)


def configuration(line: str) -> Config:
    return parse(["--dry-run", "--model", "contextlm-gpt2-124m", *line.split()], {}).config


@pytest.mark.parametrize("split", SPLITS)
def test_forward_passes_of_the_stages_are_the_models(split: str) -> None:
    config = configuration(split)
    works = stage_work(config, VOCAB_SIZE)
    assert sum(work.forward for work in works) == pytest.approx(forward_flops_per_token(config, VOCAB_SIZE), rel=1e-12)
    assert [work.output > 0 for work in works] == [False] * (len(works) - 1) + [True]
    assert sum(work.head > 0 for work in works) == 1
    assert all(work.again == 0 for work in works)


def test_the_head_is_work_of_the_stage_that_holds_its_layer() -> None:
    for encoder_layers, stage in ((0, 0), (5, 1), (6, 2), (11, 3)):
        config = configuration(f"--pipeline-model-parallel-size 4 --context-encoder-layers {encoder_layers}")
        assert [work.head > 0 for work in stage_work(config, VOCAB_SIZE)] == [s == stage for s in range(4)]


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_computed_again(split: str) -> None:
    plain = configuration(split)
    layers = sum(work.layers + work.head for work in stage_work(plain, VOCAB_SIZE))

    def again(line: str) -> float:
        return sum(work.again for work in stage_work(configuration(f"{split} {line}"), VOCAB_SIZE))

    every = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    assert again(every) == pytest.approx(layers)
    parts = "--recompute-granularity selective --recompute-modules"
    model, chunks = plain.model, 1024 // 4
    attention = 4 * model.hidden_size * (12 * 1024 + 2 * chunks / 4)
    assert again(f"{parts} core_attn") == pytest.approx(attention)
    mlp = 4 * model.hidden_size * model.ffn_size * (12 + 2 / 4)
    assert again(f"{parts} core_attn mlp") == pytest.approx(attention + mlp)


def test_block_recomputation_counts_the_first_layers_of_a_part() -> None:
    block = "--recompute-granularity full --recompute-method block --recompute-num-layers 2"
    for encoder_layers, head_again in ((6, True), (8, False)):
        line = f"--pipeline-model-parallel-size 2 --context-encoder-layers {encoder_layers} {block}"
        works = stage_work(configuration(line), VOCAB_SIZE)
        per_layer = works[0].layers / 6
        assert works[0].again == pytest.approx(2 * per_layer)
        assert works[1].again == pytest.approx(2 * per_layer + (works[1].head if head_again else 0))


def played(times: list[float], num_microbatches: int, num_chunks: int) -> float:
    """The length of a step, by playing the schedule: a pass begins when its stage is free and its input there.

    Forward passes are a third of a stage's time. Warm-up and order of chunks are megatron-core's
    (pipeline_parallel/schedules.py, get_num_warmup and get_schedule_table).
    """
    stages = len(times)
    number = num_microbatches * num_chunks
    order = [(i // stages % num_chunks, i // (stages * num_chunks) * stages + i % stages) for i in range(number)]
    queues = []
    for stage in range(stages):
        ahead = stages - 1 - stage if num_chunks == 1 else 2 * (stages - 1 - stage) + (num_chunks - 1) * stages
        ahead = min(ahead, number)
        forward = [("F", *entry) for entry in order] if num_chunks > 1 else [("F", 0, i) for i in range(number)]
        backward = [("B", num_chunks - 1 - part, sample) for _, part, sample in forward]
        queue = forward[:ahead]
        for index in range(ahead, number):
            queue += [forward[index], backward[index - ahead]]
        queues.append(queue + backward[number - ahead :])
    last = num_chunks * stages - 1
    ends: dict[tuple[str, int, int], float] = {}
    free = [0.0] * stages
    while any(queues):
        for stage, queue in enumerate(queues):
            while queue:
                kind, part, sample = queue[0]
                place = part * stages + stage
                needs = ("F", place - 1, sample) if kind == "F" else ("B", place + 1, sample)
                if kind == "B" and place == last:
                    needs = ("F", last, sample)
                begins = free[stage]
                if needs[1] >= 0:
                    if needs not in ends:
                        break
                    begins = max(begins, ends[needs])
                free[stage] = begins + times[stage] / num_chunks * (1 / 3 if kind == "F" else 2 / 3)
                ends[kind, place, sample] = free[stage]
                queue.pop(0)
    return max(free)


@pytest.mark.parametrize(("stages", "number", "chunks"), [(2, 1, 1), (4, 8, 1), (8, 16, 1), (4, 8, 2), (4, 16, 3)])
def test_equal_stages_wait_as_narayanan_et_al_say(stages: int, number: int, chunks: int) -> None:
    times = [3.0] * stages
    assert step_length(times, number, chunks) == pytest.approx(played(times, number, chunks))
    shares = balance(times, number, chunks)
    assert shares.bubble / shares.work == pytest.approx((stages - 1) / (number * chunks))
    assert shares.waiting_for_slowest == 0


@pytest.mark.parametrize("times", [[3.0, 3, 3, 4], [2.0, 3, 4, 3], [4.0, 2, 2, 3]])
@pytest.mark.parametrize("chunks", [1, 2])
def test_unequal_stages_wait_for_the_slowest(times: list[float], chunks: int) -> None:
    for number, most in ((8, 0.13), (32, 0.04)):
        whole = played(times, number, chunks)
        # Where an early stage is slow, its first forward passes fill some of the wait.
        assert -0.01 <= step_length(times, number, chunks) / whole - 1 <= most
        assert number * sum(times) / 4 < 0.9 * whole  # that they share the work equally would be noticed
        assert sum(balance(times, number, chunks)) == pytest.approx(1)
