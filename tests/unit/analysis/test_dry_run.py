"""The text of `--dry-run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pretrain_contextlm
from contextlm.analysis.dry_run import describe
from contextlm.config import parse

ROOT = Path(__file__).resolve().parents[3]


def screen(line: str) -> str:
    asked = parse(["--dry-run", *line.split()], {})
    return describe(asked.config, asked.world_size)


def test_says_what_a_run_would_be():
    text = screen(
        "--model contextlm-gpt2-124m --tensor-model-parallel-size 2 --pipeline-model-parallel-size 4 "
        "--world-size 16 "
        "--global-batch-size 64 --micro-batch-size 4"
    )
    assert "138,617,089" in text and "the head adds 11.4%" in text
    assert "training 0.8769" in text
    assert "Layout on 16 processes: TP 2 x PP 4 x DP 2" in text
    assert "64 samples = 4 per micro-batch x 2 data-parallel x 8 micro-batches; 65,536 tokens" in text
    assert "stage 2: layers 6 to 8, the context head before layer 6\n" in text
    assert "stage 3: layers 9 to 11, final norm and output layer" in text
    assert "3         1.77  the output layer 60% of it\n" in text
    assert "a step is 48.9% work, 37.5% waiting for stage 3, 13.6% bubble\n" in text
    assert "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1\n" in text
    assert len(text.splitlines()) <= 85


def test_says_which_layers_the_parts_of_a_stage_are():
    text = screen(
        "--model contextlm-gpt2-tiny --num-layers 8 --tensor-model-parallel-size 2 --sequence-parallel "
        "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 8 "
        "--rampup-batch-size 2 2 100"
    )
    assert "TP 2 x PP 2 x DP 1, interleaved 2, sequence parallel\n" in text
    assert "at first 2 samples, 2 more at a time until 100 are consumed\n" in text
    assert "stage 0: embedding, layers 0 to 1 and 4 to 5, the context head before layer 4\n" in text
    assert "stage 1: layers 2 to 3 and 6 to 7, final norm and output layer\n" in text
    uneven = screen("--num-layers 4 --pipeline-model-parallel-size 2 --decoder-last-pipeline-num-layers 1")
    assert "stage 0: embedding, layers 0 to 2\n" in uneven and "stage 1: layer 3, final norm" in uneven
    assert "DP 1\n" in uneven


def test_the_configuration_in_it_is_yaml():
    (block,) = (b for b in screen("--model pythia-70m --lr 3e-4").split("\n\n") if b.startswith("Configuration\n"))
    tree = yaml.safe_load(block.removeprefix("Configuration\n"))
    assert tree["preset"] == "pythia-70m" and tree["optimizer"]["lr"] == 3e-4


def test_without_a_world_size_the_smallest_that_fits():
    assert "Layout on 4 processes" in screen("--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2")


def test_an_unknown_vocabulary_is_said():
    assert "vocabulary unknown" in screen("--model gpt2-tiny")
    assert "vocabulary 515, padded to 640" in screen("--model gpt2-tiny --vocab-size 515")


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("--tokenizer-type ByteTokenizer", 257),
        ("--tokenizer-type ByteTokenizer --vocab-size 9", 257),
        ("--tokenizer-type NullTokenizer --vocab-size 9", 10),
        ("", 50257),
    ],
)
def test_a_given_tokenizer_says_the_vocabulary(
    words: str, size: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain_contextlm.py", "--model", "gpt2-124m", "--dry-run", *words.split()])
    pretrain_contextlm.main()
    assert f"Parameters (vocabulary {size}, padded to" in capsys.readouterr().out


def test_a_tokenizer_that_cannot_be_read_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "w.model").write_text("no model")
    words = f"--dry-run --tokenizer-type SentencePieceTokenizer --tokenizer-model {tmp_path / 'w.model'}"
    monkeypatch.setattr(sys, "argv", ["pretrain_contextlm.py", *words.split()])
    with pytest.raises(SystemExit):
        pretrain_contextlm.main()
    assert "w.model: not a SentencePiece model" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "heavy"), [("", "numpy"), ("--tokenizer-type ByteTokenizer", "torch")])
def test_it_imports_no_more_than_it_needs(words: str, heavy: str) -> None:
    code = f"import sys, pretrain_contextlm; pretrain_contextlm.main(); print({heavy!r} in sys.modules)"
    line = [sys.executable, "-c", code, "--model", "gpt2-124m", "--dry-run", *words.split()]
    ran = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
