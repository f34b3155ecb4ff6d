"""The text of `--dry-run`."""

from __future__ import annotations

import yaml

from contextlm.analysis.dry_run import describe
from contextlm.config import parse


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
    assert "Layout on 16 processes: tensor 2 x pipeline 4 x data 2" in text
    assert "64 samples = 4 per micro-batch x 2 data-parallel x 8 micro-batches; 65,536 tokens" in text
    assert "stage 2: layers 6 to 8, the context head before layer 6\n" in text
    assert "stage 3: layers 9 to 11, final norm and output layer" in text
    assert "activations not counted" in text
    assert len(text.splitlines()) <= 60


def test_the_configuration_in_it_is_yaml():
    (block,) = (b for b in screen("--model pythia-70m --lr 3e-4").split("\n\n") if b.startswith("Configuration\n"))
    tree = yaml.safe_load(block.removeprefix("Configuration\n"))
    assert tree["preset"] == "pythia-70m" and tree["optimizer"]["lr"] == 3e-4


def test_without_a_world_size_the_smallest_that_fits():
    assert "Layout on 4 processes" in screen("--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2")


def test_an_unknown_vocabulary_is_said():
    assert "vocabulary unknown" in screen("--model gpt2-tiny")
    assert "vocabulary 515, padded to 640" in screen("--model gpt2-tiny --vocab-size 515")
