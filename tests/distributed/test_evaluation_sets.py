"""`--skip-train`, `--full-validation` and several validation sets: what is evaluated, under which name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contextlm.data.indexed import IndexedWriter
from tests.cli.programs import SMALL
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import command


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, str]:
    """Datasets of 40, 9 and 3 samples of 66 tokens; the last one not enough for a micro-batch of two ranks."""
    prefixes = {}
    for name, samples in (("train", 40), ("news", 9), ("code", 3)):
        with IndexedWriter(tmp_path / name, 257) as writer:
            writer.add_document([(7 * place + len(name)) % 250 for place in range(66 * samples + 1)])
        prefixes[name] = str(tmp_path / name)
    return prefixes


def run(pool: Pool, folder: Path, *words: str, ranks: int = 1) -> list[dict[str, Any]]:
    """Evaluation lines that a run adds to metrics.jsonl of `folder`."""
    file = folder / "metrics.jsonl"
    before = len(file.read_text().splitlines()) if file.exists() else 0
    places = ("--save", str(folder), "--load", str(folder))
    assert set(pool.run(command, ranks, words=[*SMALL, *places, *words])) == {0}
    lines = [json.loads(line) for line in file.read_text().splitlines()[before:]]
    return [line for line in lines if "split" in line]


def told(lines: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    return [(line["iteration"], line["split"], line["num_tokens"] // 66) for line in lines]


def test_each_set_is_evaluated_by_itself_and_again_without_training(pool: Pool, sets, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    paths = ("--valid-data-path", sets["news"], sets["code"], "--test-data-path", sets["news"])
    several = (*paths, "--multiple-validation-sets")
    lines = run(
        pool, folder, "--train-data-path", sets["train"], *several,
        "--train-iters", "2", "--eval-interval", "1", "--eval-iters", "1",
    )  # fmt: skip
    # One global batch of 4 samples; of the small set as many as fill a micro-batch of 2.
    at = [("validation/news", 4), ("validation/code", 2)]
    assert told(lines) == [(i, *one) for i in (1, 2) for one in at] + [(2, "test", 4)]
    again = run(pool, folder, *several, "--skip-train", "--eval-iters", "1")
    assert again == lines[-3:]
    assert not (folder / "iter_0000003").exists()

    whole = run(pool, folder, *several, "--skip-train", "--full-validation", "--eval-iters", "1")
    assert told(whole) == [(2, "validation/news", 8), (2, "validation/code", 2), (2, "test", 4)]
    assert whole[1:] == again[1:]
    together = run(pool, folder, *paths, "--skip-train", "--full-validation")
    assert [line["split"] for line in together] == ["validation", "test"]


def test_nothing_to_evaluate_is_an_error(pool: Pool, sets, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(pool, folder, "--data-path", sets["train"], "--split", "1,0,0", "--train-iters", "1")
    with pytest.raises(AssertionError, match="UserError: --skip-train: neither validation nor test data hold a sample"):
        run(pool, folder, "--data-path", sets["train"], "--split", "1,0,0", "--skip-train")
