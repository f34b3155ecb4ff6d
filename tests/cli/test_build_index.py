"""tools/build_index.py: the training that follows finds everything; what cannot be built is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import parse
from contextlm.data import index_cache
from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.data.datasets import build_datasets
from tests.cli.programs import SMALL, run
from tools import build_index


def words(data: Path, cache: Path, *more: str) -> list[str]:
    """A training's command line."""
    places = ("--data-path", str(data), "--data-cache-path", str(cache))
    return [*SMALL, *places, "--train-iters", "1500", "--tensor-model-parallel-size", "2", *more]


def test_training_finds_what_it_built(data: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(index_cache, "MEMORY_BYTES", 0)
    build_index.main(words(data, tmp_path / "cache"))
    shown = capfd.readouterr()
    assert "building the sample order" in shown.err and "training" in shown.out and "epochs" in shown.out
    config = parse([*words(data, tmp_path / "cache"), "--world-size", "4", "--dry-run"], {}).config
    datasets = build_datasets(config, ByteTokenizer(), 4)
    datasets.prepare(range(4 * 1500))
    epochs = -(-4 * 1500 // datasets.train.samples_per_epoch)
    assert epochs > 2 and f"epoch {epochs} (" in shown.err and f"epoch {epochs + 1} (" not in shown.err
    assert capfd.readouterr().err == ""
    build_index.main(words(data, tmp_path / "cache"))
    assert capfd.readouterr().err == ""


def test_the_program_needs_no_torch(data: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not for a login node')")
    shown = run("tools/build_index.py", *words(data, tmp_path / "cache"), PYTHONPATH=f"{tmp_path}:.")
    assert shown.returncode == 0, shown.stderr
    assert "training" in shown.stdout and not (tmp_path / "cache").exists()  # small data stay in memory


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--data-path: missing"),
        (("--data-path", "no/such"), "--data-path no/such: "),
        (("--data-path", "HERE", "--train-iters", "5"), "--global-batch-size: missing"),
        (("--data-path", "HERE", "--train-itres", "5"), "--train-itres: unknown flag"),
        (("--data-path", "HERE", "--world-size", "2", "--seq-length", "100000"), "one sample needs 100001"),
    ],
)
def test_mistakes(data: Path, more: tuple[str, ...], message: str, capfd) -> None:
    with pytest.raises(SystemExit) as ended:
        build_index.main([str(data) if word == "HERE" else word for word in more])
    assert ended.value.code == 1
    said = capfd.readouterr().err
    assert said.startswith("error: ") and message in said
