"""`--skip-train`, `--full-validation` and several validation sets: what is evaluated, under which name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contextlm.data.indexed_writer import IndexedWriter
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


def run(pool: Pool, folder: Path, *words: str, load: Path | None = None) -> list[dict[str, Any]]:
    """Evaluation lines in metrics.jsonl of `folder` after a run."""
    places = ("--save", str(folder), "--load", str(load or folder))
    assert set(pool.run(command, 1, words=[*SMALL, *places, *words])) == {0}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "split" in line]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    # Evaluated again: the same results in the same places, and nothing else is touched.
    (folder / "exit.json").write_text('{"status": 75}')
    files = contents(folder)
    assert run(pool, folder, *several, "--skip-train", "--eval-iters", "1") == lines
    assert contents(folder) == files

    whole = run(pool, folder, *several, "--skip-train", "--full-validation", "--eval-iters", "1")
    assert told(whole[2:]) == [(2, "validation/news", 8), (2, "validation/code", 2), (2, "test", 4)]
    assert whole[:2] + whole[3:] == lines[:2] + lines[3:]
    # In other words, of another precision, from another folder with a checkpoint of its own.
    shutil.copytree(folder, other := tmp_path / "other")
    (other / "metrics.jsonl").unlink()
    words = (*paths, "--skip-train", "--full-validation", "--finetune", "--bf16")
    together = run(pool, other, *words, load=folder)
    assert told(together) == [(2, "validation", 12), (2, "test", 8)]


def test_nothing_to_evaluate_is_an_error(pool: Pool, sets, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(pool, folder, "--data-path", sets["train"], "--split", "1,0,0", "--train-iters", "1")
    with pytest.raises(AssertionError, match="UserError: --skip-train: neither validation nor test data hold a sample"):
        run(pool, folder, "--data-path", sets["train"], "--split", "1,0,0", "--skip-train")
