"""Mistakes as a program tells them, all at once where they are found at once, and nothing is lost.

What is said of each wrong command line is in tests/unit/config/wrong_command_lines.txt.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.programs import SMALL, run

TRAIN = ("pretrain_contextlm.py", *SMALL, "--train-iters", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data-path", "no/such/prefix"), "no/such/prefix.bin and no/such/prefix.idx not found"),
        (("--num-experts", "8"), "not supported in ContextLM because"),
        (
            ("--full-validation", "--split", "999,1,0"),
            "its validation split (--split 999,1,0) has 0 tokens in 0 documents",
        ),
        (("--split", "0,1,0"), "--split 0,1,0: leaves nothing for training"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_command_line(data: Path, arguments: tuple[str, ...], message: str) -> None:
    if arguments[0] != "--data-path":
        arguments = ("--data-path", str(data), *arguments)
    done = run(*TRAIN, *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message in done.stderr, done.stderr


def test_all_mistakes_at_once(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("training:\n  train_itres: 5\nmodel:\n  num_layers: 4.5\n")
    done = run(
        *TRAIN, "--config", str(tmp_path / "run.yaml"), "--tensor-model-parallel-size", "3", "--split", "1,2",
        "--data-path", str(data) + "x", "--save-intervall", "3",
    )  # fmt: skip
    assert done.returncode == 1
    for piece in (
        "train_itres",
        "num_layers",
        "--tensor-model-parallel-size 3",
        "--split 1,2",
        "x.bin",
        "--save-intervall",
    ):
        assert piece in done.stderr, (piece, done.stderr)
    assert str(data) in done.stderr  # the nearest dataset is named


def spoiled(data: Path, folder: Path) -> Path:
    """A copy of the dataset, to be damaged."""
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{data}{suffix}", folder / f"copy{suffix}")
    return folder / "copy"


def truncate(prefix: Path) -> None:
    """The last tokens are gone."""
    content = Path(f"{prefix}.bin").read_bytes()
    Path(f"{prefix}.bin").write_bytes(content[:-100])


def retokenize(prefix: Path) -> None:
    """The sidecar names another tokenizer."""
    sidecar = json.loads(Path(f"{prefix}.json").read_text())
    sidecar["tokenizer_fingerprint"] = "0" * 64
    Path(f"{prefix}.json").write_text(json.dumps(sidecar))


def add_large_id(prefix: Path) -> None:
    """An id that the vocabulary does not have, and no sidecar that could tell."""
    Path(f"{prefix}.json").unlink()
    content = bytearray(Path(f"{prefix}.bin").read_bytes())
    content[0:2] = (60000).to_bytes(2, "little")
    Path(f"{prefix}.bin").write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "pieces"),
    [(truncate, ("truncated", "copy.bin")), (retokenize, ("tokenizer",)), (add_large_id, ("60000", "257"))],
)
def test_data(data: Path, tmp_path: Path, damage, pieces: tuple[str, ...]) -> None:
    prefix = spoiled(data, tmp_path)
    damage(prefix)
    save = tmp_path / "save"
    done = run(*TRAIN, "--data-path", str(prefix), "--save", str(save))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for piece in pieces:
        assert piece in done.stderr, done.stderr
    record = json.loads((save / "exit.json").read_text())
    assert record["status"] == 1 and pieces[0] in record["cause"]
    assert sorted(path.name for path in save.iterdir()) == ["events.jsonl", "exit.json"]


def test_checkpoints(data: Path, twenty_steps: Path, tmp_path: Path) -> None:
    twenty_steps = Path(shutil.copytree(twenty_steps, tmp_path / "twenty"))
    before = {path: path.stat().st_mtime_ns for path in twenty_steps.rglob("iter_*/*")}
    other = run(
        *TRAIN, "--data-path", str(data), "--load", str(twenty_steps), "--context-chunk-size", "8", "--num-layers", "2"
    )
    assert other.returncode == 1
    assert "--context-chunk-size 8: checkpoint" in other.stderr and "--num-layers 2: checkpoint" in other.stderr
    fresh = run(*TRAIN, "--data-path", str(data), "--save", str(twenty_steps))
    assert fresh.returncode == 1 and "would overwrite" in fresh.stderr
    assert before == {path: path.stat().st_mtime_ns for path in twenty_steps.rglob("iter_*/*")}


def test_under_torchrun_every_mistake_is_told_and_kept(data: Path, tmp_path: Path) -> None:
    stale = tmp_path / "exit.json"  # of an earlier job
    stale.write_text('{"status": 0, "rank": 0, "cause": null, "attempt": 0}')
    os.utime(stale, (0, 0))
    mistakes = ("--train-itres", "5", "--lr", "fast", "--split", "1,2")
    done = run(*TRAIN, "--data-path", str(data), "--save", str(tmp_path), *mistakes, processes=2)
    assert done.returncode == 1
    for piece in ("--train-itres", "--lr", "--split 1,2"):
        assert f"error: {piece}" in done.stderr, done.stderr
    record = json.loads((tmp_path / "exit.json").read_text())
    assert record["status"] == 1 and "--train-itres" in record["cause"]
