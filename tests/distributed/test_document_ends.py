"""Training and evaluation with the ends of documents: what counts, in every layout, and where nothing does.

The layout matrix (test_matrix.py) has the gradients; tests/unit/model/test_isolation.py who sees whom.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.cli.programs import SMALL, tool
from tests.distributed.document_cases import evaluation_counts, evaluations, loss_by_hand, steps_on_nothing
from tests.distributed.layout_cases import save_random_weights
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import command

ENDS = {"reset_position_ids": True, "reset_attention_mask": True, "eod_mask_loss": True}
FLAGS = ("--reset-position-ids", "--reset-attention-mask", "--eod-mask-loss")
BATCH = {"micro_batch_size": 1, "global_batch_size": 4}
TP2_SP = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
INTERLEAVED = {"pipeline_model_parallel_size": 2, "num_virtual_stages_per_pipeline_rank": 2}


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_the_loss_is_the_mean_over_the_tokens_that_count(pool: Pool, chunk_size: int) -> None:
    values = ENDS | BATCH | {"context_chunk_size": chunk_size, "seq_length": 34}
    ((found, expected),) = pool.run(loss_by_hand, 1, values=values)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("layout", [{}, INTERLEAVED], ids=["DP2", "PP2 interleaved"])
def test_an_iteration_in_which_no_token_counts_changes_nothing(pool: Pool, layout: dict) -> None:
    *_, (before, nothing, after) = pool.run(steps_on_nothing, 2, values=ENDS | BATCH | layout)
    assert nothing == (0.0, 0.0, True)
    for loss, norm, finite in (before, after):
        assert 1 < loss < 10 and 0 < norm < 100 and finite


@pytest.fixture(scope="module")
def weights(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("documents"))
    pool.run(save_random_weights, 1, folder=folder, backbone="gpt2", values=ENDS | BATCH)
    return folder


def test_an_evaluation_counts_what_is_scored(pool: Pool, weights: str) -> None:
    ((one, nothing),) = pool.run(evaluations, 1, folder=weights, values=ENDS | BATCH)
    loss, num_tokens, num_bytes, by_position, zeroed = one
    ((tokens, text),) = pool.run(evaluation_counts, 1, values=ENDS | BATCH)
    assert (num_tokens, num_bytes) == (tokens, text) and num_tokens < 3 * 4 * 66
    assert min(by_position) < loss < max(by_position) and abs(zeroed - loss) > 1e-3
    assert nothing[1:3] == (0, 0) and all(math.isnan(x) for x in (nothing[0], *nothing[3], nothing[4]))
    ((other, _),) = pool.run(evaluations, 1, folder=weights, values=BATCH)
    assert other[1] == 3 * 4 * 66
    for layout in ({}, TP2_SP, INTERLEAVED):
        for found, _ in pool.run(evaluations, 2, folder=weights, values=ENDS | BATCH | layout):
            assert found[:1] + found[4:] == pytest.approx((loss, zeroed), rel=1e-5)
            assert found[1:3] == (tokens, text) and found[3] == pytest.approx(by_position, rel=1e-5)


def test_the_tool_scores_as_the_training_did(pool: Pool, data: Path, tmp_path: Path) -> None:
    places = ("--data-path", str(data), "--save", str(tmp_path), "--load", str(tmp_path))
    words = [*SMALL, *places, *FLAGS, "--train-iters", "2", "--eval-iters", "2"]
    assert pool.run(command, 1, words=words) == [0]
    (logged,) = (
        line
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if line.get("split") == "validation"
    )
    output = tmp_path / "score.json"
    pool.run(
        tool, 1, name="evaluate", arguments=["--load", str(tmp_path), "--output", str(output), "--max-samples", "8"]
    )
    scored = json.loads(output.read_text())
    assert scored["tokens"] == logged["num_tokens"] and scored["tokens"] % 66 != 0
    assert scored["lm_loss"] == pytest.approx(logged["lm_loss"], rel=1e-5)
    assert scored["bits_per_byte"] == pytest.approx(logged["bits_per_byte"], rel=1e-5)


def test_data_without_ends_is_an_error_before_any_process_group(pool: Pool, tmp_path: Path) -> None:
    from contextlm.data.indexed_writer import IndexedWriter

    with IndexedWriter(tmp_path / "data", 257) as writer:
        writer.add_document(list(range(200)))
    words = [*SMALL, "--data-path", str(tmp_path / "data"), "--split", "1,0,0", "--train-iters", "1", FLAGS[1]]
    with pytest.raises(AssertionError, match="--reset-attention-mask: no document of .* ends with the end-of-document"):
        pool.run(command, 1, words=words)
