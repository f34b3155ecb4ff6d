"""What a run tells is true: of the whole model in every layout, of the context's worth, of the time it took."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import pytest

from tests.distributed.layout_cases import save_random_weights
from tests.distributed.measure_cases import (
    elapsed_beside_slow_work,
    evaluation,
    gathers_at_a_log_line,
    model_measures,
    own_work_of_a_slow_rank,
    told,
    told_of_compiling,
    told_without_a_disk_for_traces,
    weights_after_a_step,
)
from tests.distributed.pool import Pool

# One padded vocabulary for all layouts: its rows count in the norm.
SMALL = {
    "micro_batch_size": 1,
    "global_batch_size": 4,
    "lr": 1e-3,
    "make_vocab_size_divisible_by": 384,
    "context_pooling": "last",  # its first update closes the gate: a copy not updated yet would show in the greatest
}
TP2, PP2 = {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}
GATHER = {"overlap_grad_reduce": True, "overlap_param_gather": True, "ddp_bucket_size": 20_000}
PLAIN = {"use_distributed_optimizer": False}
LAYOUTS = {
    "one": (1, {}),
    "DP2, gathered late": (2, GATHER),
    "TP2 SP, plain": (2, TP2 | PLAIN | {"sequence_parallel": True}),
    "PP2": (2, PP2),
    "TP2 x PP2, plain": (4, TP2 | PP2 | PLAIN),
}


@pytest.fixture(scope="module")
def weights(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights."""
    folder = str(tmp_path_factory.mktemp("measures"))
    pool.run(save_random_weights, 1, folder=folder, backbone="gpt2", values=SMALL)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_and_gate_are_those_of_the_whole_model(pool: Pool, weights: str, layout: str) -> None:
    ((norm, gate),) = pool.run(weights_after_a_step, 1, folder=weights, values=SMALL)
    world_size, values = LAYOUTS[layout]
    ranks = pool.run(model_measures, world_size, folder=weights, values=SMALL | values)
    for found in ranks:
        assert found["params_norm"] == pytest.approx(norm, rel=1e-5)
        assert found["gate"] == pytest.approx(gate, rel=1e-4)
        assert found["peak_memory_bytes"] == ranks[0]["peak_memory_bytes"] > 2**27


def test_a_log_line_gathers_weights_only_for_a_gate(pool: Pool) -> None:
    for values, gathers in (({}, 1), ({"context_fusion": "add"}, 0), ({"context_chunk_size": 0}, 0)):
        assert pool.run(gathers_at_a_log_line, 1, values=SMALL | GATHER | values) == [gathers]


def test_an_evaluation_says_what_the_context_is_worth(pool: Pool, weights: str) -> None:
    (one,) = pool.run(evaluation, 1, folder=weights, values=SMALL)
    loss, num_tokens, _, by_position, zeroed = one
    # The same as the whole model built with this control.
    ((expected, *_, not_measured),) = pool.run(
        evaluation, 1, folder=weights, values=SMALL | {"context_control": "zero", "eval_context_zeroed": False}
    )
    assert zeroed == pytest.approx(expected, rel=1e-12) and abs(zeroed - loss) > 1e-3 and not_measured is None
    # 66 tokens in chunks of 4: the first two positions have one more.
    assert num_tokens == 3 * 4 * 66
    assert loss == pytest.approx(sum(n * x for n, x in zip((17, 17, 16, 16), by_position, strict=True)) / 66)
    assert max(by_position) - min(by_position) > 1e-3
    for layout in ({}, TP2 | {"sequence_parallel": True}):
        for found in pool.run(evaluation, 2, folder=weights, values=SMALL | layout):
            assert found[3] == pytest.approx(by_position, rel=1e-5) and found[4] == pytest.approx(zeroed, rel=1e-5)


def test_a_plain_model_has_no_context_to_speak_of(pool: Pool) -> None:
    (result,) = pool.run(evaluation, 1, folder=None, values={"context_chunk_size": 0})
    assert math.isfinite(result[0]) and result[3:] == (None, None)


def test_where_no_chunk_completes_there_is_nothing_to_zero(pool: Pool) -> None:
    """A sample has 66 tokens: a chunk of 66 has its prediction at the last of them, one of 67 has none."""
    for chunk_size, is_zeroed in ((66, True), (67, False)):
        ((*_, by_position, zeroed),) = pool.run(evaluation, 1, folder=None, values={"context_chunk_size": chunk_size})
        assert len(by_position) == chunk_size and (zeroed is not None) == is_zeroed


def test_every_line_has_every_measure(pool: Pool, tmp_path: Path) -> None:
    values = {"train_iters": 5, "log_interval": 2, "eval_iters": 1, "eval_interval": 3, "output_dir": str(tmp_path)}
    printed, lines = pool.run(told, 2, values=values | {"peak_tflops": 1e-3})[-1]
    training = [line for line in lines if "split" not in line]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 3, 4, 5, 5]  # evaluated between log lines, in order
    for line in training:
        assert line["tokens_per_second"] == pytest.approx(2 * 66 / line["elapsed_ms"] * 1000)
        assert line["tokens_per_second_per_gpu"] == line["tokens_per_second"] / 2
        assert line["mfu"] == pytest.approx(line["tflops_per_gpu"] * 1000)
        assert 0 <= line["data_wait_ms"] < line["elapsed_ms"] and line["grad_norm"] > 0
        at_log_line = line["iteration"] in (2, 4, 5)
        own = ("own_ms_fastest", "own_ms_median", "own_ms_slowest", "slowest_rank")
        for name in ("eta_seconds", "params_norm", "gate", "peak_memory_bytes", *own):
            assert (line[name] is not None) == at_log_line, name
    assert training[-1]["eta_seconds"] == 0 < training[1]["eta_seconds"]
    for name in ("tokens/s", "data wait (ms)", "peak memory (GiB)", "params norm", "gate"):
        assert len(re.findall(rf" {re.escape(name)}: -?\d+(\.\d+)? \|", printed)) == 3, name
    (evaluation, _) = [line for line in lines if "split" in line]
    assert len(evaluation["lm_loss_by_position"]) == 4 and evaluation["lm_loss_context_zeroed"] > 0
    assert printed.count(" lm loss, context zeroed: ") == 2


def test_a_slow_rank_is_found_although_all_take_as_long(pool: Pool, tmp_path: Path) -> None:
    """On two ranks with two micro-batches each; the third log line in a row says so."""
    values = {"train_iters": 8, "log_interval": 2, "eval_iters": 0, "micro_batch_size": 1, "global_batch_size": 4}
    printed, lines = pool.run(own_work_of_a_slow_rank, 2, slow_rank=0, values=values | {"output_dir": str(tmp_path)})[
        -1
    ]
    for line in lines[1::2]:
        assert line["own_ms_fastest"] == line["own_ms_median"] == pytest.approx(80)
        assert line["own_ms_slowest"] == pytest.approx(200) and line["slowest_rank"] == 0
    warning = "warning: rank 0 is slow: 200 ms an iteration until it has its gradients, the median rank takes 80 ms"
    assert printed.count(warning) == 1 and printed.index(" iteration        6/") < printed.index(warning)
    assert printed.index(warning) < printed.index(" iteration        8/")


def test_the_profile_opens_and_names_ten_operations(pool: Pool, tmp_path: Path) -> None:
    values = {"train_iters": 5, "eval_iters": 0, "output_dir": str(tmp_path), "profile": True}
    steps = {"profile_step_start": 2, "profile_step_end": 4, "profile_ranks": ("1",)}
    printed = pool.run(told, 2, values=values | steps)[1][0]
    table = printed.split("longest operations:\n")[1].split("Self CPU time total")[0].splitlines()
    rules = [number for number, line in enumerate(table) if line.startswith("---")]
    assert rules[2] - rules[1] - 1 == 10 and len(rules) == 3
    (trace,) = tmp_path.glob("*trace*")
    assert trace.name == "trace_rank1.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    updates = [event for event in events if event.get("name") == "aten::_fused_adamw_"]
    assert len({event["ts"] for event in updates}) == 2 * 2  # two iterations, two groups of parameters


PROFILE = {"profile": True, "profile_step_start": 1, "profile_step_end": 2, "train_iters": 4, "eval_iters": 0}


def test_a_profile_of_iterations_that_are_not_run_is_said(pool: Pool, tmp_path: Path) -> None:
    late = {"profile_step_start": 7, "profile_step_end": 9}
    (printed, _), (other_rank, _) = pool.run(told, 2, values=PROFILE | late | {"output_dir": str(tmp_path)})
    assert (printed + other_rank).count("note: --profile: none of the iterations 8 to 9 was run") == 1
    assert not list(tmp_path.glob("*trace*"))


@pytest.mark.parametrize("work", [PROFILE, PROFILE | {"profile": False, "check_replicas_interval": 1}])
def test_what_happens_between_iterations_is_not_their_time(pool: Pool, tmp_path: Path, work: dict) -> None:
    ((*times,),) = pool.run(elapsed_beside_slow_work, 1, values=work | {"log_interval": 2, "output_dir": str(tmp_path)})
    assert len(times) == 4 and max(times) < 1000


def test_a_trace_that_cannot_be_written_stops_nothing(pool: Pool, tmp_path: Path) -> None:
    values = PROFILE | {"log_interval": 1, "output_dir": str(tmp_path)}
    (printed,) = pool.run(told_without_a_disk_for_traces, 1, values=values)
    assert "warning: the profile failed, training goes on: OSError: [Errno 28] No space left" in printed
    assert re.search("iteration +4/", printed)


def test_each_line_tells_its_own_compiling(pool: Pool, tmp_path: Path) -> None:
    values = SMALL | {
        "output_dir": str(tmp_path),
        "train_iters": 2,
        "log_interval": 1,
        "eval_interval": 1,
        "eval_iters": 1,
    }
    # Two iterations, an evaluation after each, and one of the test data at the end.
    (lines,) = pool.run(told_of_compiling, 1, seconds_by_call=[20.0, 33.0, 33.0, 33.0, 33.0], values=values)
    assert lines == ["compiling took 20.0 s of it", "compiling took 13.0 s since the line before"]
