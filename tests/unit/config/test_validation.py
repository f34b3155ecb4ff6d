"""Checks of values against each other: each mistake is found and says what would work."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import parse
from contextlm.errors import UserError
from tests.unit.config.dry_problems import dry_problems


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    for name in ("a_text_document.bin", "a_text_document.idx", "b.bin", "b.idx"):
        (tmp_path / name).write_bytes(b"")
    return str(tmp_path / "a_text_document")


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        (
            "--hidden-size 130",
            "--num-attention-heads 4: does not divide --hidden-size 130; use 1 or 2 or 5",
        ),
        ("--bf16 --fp16", "--bf16 and --fp16: weights have one precision; keep one of the two"),
        (
            "--min-loss-scale 8 --initial-loss-scale 4",
            "--min-loss-scale 8: above --initial-loss-scale 4; use at most 4",
        ),
        ("--min-lr 1e-3", "--min-lr 0.001: above --lr 0.0006; use at most 0.0006"),
        ("--train-iters 10 --lr-warmup-iters 10", "must end before --train-iters 10; use at most 9"),
        ("--lr-decay-iters 5 --lr-warmup-iters 7", "must end before --lr-decay-iters 5; use at most 4"),
        ("--lr-decay-style WSD --train-iters 10", "add --lr-wsd-decay-iters"),
        ("--lr-wsd-decay-iters 10", "--lr-wsd-decay-iters 10: of --lr-decay-style WSD; add it"),
        (
            "--lr-decay-style WSD --train-iters 10 --lr-warmup-iters 4 --lr-wsd-decay-iters 7",
            "only 6 iterations follow the warm-up; use at most 6",
        ),
        ("--train-samples 100 --train-iters 10", "--train-samples 100: --train-iters 10 is a length too; keep one"),
        ("--train-samples 100 --lr-warmup-iters 3", "is in samples (--train-samples 100); use --lr-warmup-samples"),
        ("--train-samples 100 --lr-decay-iters 30", "--lr-decay-iters 30: the run is in samples"),
        ("--train-samples 100 --lr-wsd-decay-iters 3", "use --lr-wsd-decay-samples"),
        ("--train-iters 100 --lr-warmup-samples 3", "use --lr-warmup-iters, or give its length with --train-samples"),
        ("--train-iters 100 --lr-decay-samples 3", "--lr-decay-samples 3: the run is in iterations"),
        ("--lr-wsd-decay-samples 3", "use --lr-wsd-decay-iters, or give its length"),
        ("--train-samples 100 --lr-warmup-samples 100", "must end before --train-samples 100; use at most 99"),
        ("--train-samples 9 --lr-decay-samples 5 --lr-warmup-samples 7", "before --lr-decay-samples 5; use at most 4"),
        ("--lr-warmup-fraction 0.1 --lr-warmup-iters 3", "--lr-warmup-iters 3 says it too; keep one of the two"),
        ("--lr-warmup-fraction 1", "--lr-warmup-fraction 1: the warm-up must end before the decay"),
        ("--train-samples 100 --lr-decay-style WSD", "add --lr-wsd-decay-samples"),
        (
            "--lr-decay-style WSD --train-samples 100 --lr-warmup-fraction 0.5 --lr-wsd-decay-samples 70",
            "only 50 samples follow the warm-up; use at most 50",
        ),
        ("--train-samples 3 --micro-batch-size 4", "--train-samples 3: fewer than the 4 of one batch; give 4 or more"),
        (
            "--train-samples 3 --global-batch-size 8 --rampup-batch-size 4 2 100",
            "--train-samples 3: fewer than the 4 of one batch",
        ),
        ("--valid-data-path v --data-path d", "--valid-data-path v: --data-path d is divided by --split"),
        ("--train-data-path t --split 1,0,0", "--split 1,0,0: divides --data-path, but --train-data-path t is taken"),
        ("--train-data-path 0.7 a b", "--train-data-path: b stands where a weight is expected"),
        ("--test-data-path nowhere/x", "--test-data-path nowhere/x: nowhere/x.bin and nowhere/x.idx not found"),
        ("--multiple-validation-sets", "--multiple-validation-sets: of the datasets of --valid-data-path, which is"),
        ("--multiple-validation-sets --valid-data-path 0.5 a 0.5 b", "a weight says nothing; give the prefixes alone"),
        ("--full-validation --eval-iters 0", "--full-validation: --eval-iters 0 asks for no evaluation"),
        ("--skip-train", "--skip-train: evaluates a checkpoint, but none is given; add --load FOLDER"),
        ("--skip-train --load runs/x --save runs/x", "--load runs/x: no such folder; check the path"),
        ("--skip-train --load / --eval-iters 0", "--skip-train: only evaluates, and --eval-iters 0 asks for none"),
        ("--start-weight-decay 0 --end-weight-decay 0.1", "0.1: weight decay is constant; add --weight-decay-incr"),
        ("--weight-decay-incr-style linear --end-weight-decay 0.1", "add --start-weight-decay"),
        ("--context-chunk-size 4 --context-encoder-layers 4", "with --num-layers 4 use at most 3"),
        ("--context-control zero", "only at evaluation"),
        ("--max-position-embeddings 128", "fewer positions than --seq-length 256; use at least 256"),
        ("--position-embedding-type rope --rotary-percent 0.1", "rotates 3 of a head's 32 values"),
        ("--position-embedding-type rope --rotary-percent 0.01", "use a multiple of 0.0625"),
        ("--split 1,2", "--split 1,2: 2 numbers"),
        ("--split -1,1,0", "--split -1,1,0"),
        ("--split 0,0,0", "--split 0,0,0"),
        ("--split 1,nan,1", "--split 1,nan,1"),
        ("--finetune", "add --load FOLDER"),
        ("--load nowhere", "--load nowhere: no such folder"),
        ("--init-backbone-from /", "--context-chunk-size is 0"),
        ("--save-interval 5", "add --save FOLDER"),
        ("--tokenizer-type SentencePieceTokenizer", "--tokenizer-model: missing"),
        (
            "--tokenizer-type HuggingFaceTokenizer --tokenizer-model nowhere.json",
            "nowhere.json: not found",
        ),
        ("--tokenizer-type ByteTokenizer --tokenizer-model x", "ByteTokenizer has no file"),
        ("--data-path nowhere/x", "nowhere/x.bin and nowhere/x.idx not found"),
        ("--data-path 0.7 a b", "b stands where a weight is expected"),
        ("--data-path a 0.3 b", "a stands where a weight is expected"),
        ("--data-path -1 a", "weight -1 is not a positive number"),
        ("--data-path 0.7", "the last weight, 0.7, has no prefix after it"),
    ],
)
def test_each_mistake_has_its_sentence(line, fragment):
    found = dry_problems(line)
    assert any(fragment in problem for problem in found), found
    assert all(problem.startswith("--") for problem in found)


@pytest.mark.parametrize(
    ("line", "world_size"),
    [
        ("", None),
        ("--model contextlm-gpt2-1.5b --tensor-model-parallel-size 5 --pipeline-model-parallel-size 4", 40),
        ("--model contextlm-pythia-1.4b --tensor-model-parallel-size 8 --global-batch-size 64", 32),
        ("--bf16", None),
        ("--fp16 --min-loss-scale 4 --initial-loss-scale 4", None),
        ("--loss-scale 8 --loss-scale-window 10 --hysteresis 1", None),
        ("--context-chunk-size 4 --context-encoder-layers 3 --seq-length 66", None),
        ("--context-encoder-layers 9", None),
        ("--seq-length 300", None),
        ("--position-embedding-type rope --max-position-embeddings 8", None),
        ("--train-iters 10 --lr-warmup-iters 9 --min-lr 6e-4", None),
        ("--lr-decay-style WSD --train-iters 10 --lr-warmup-iters 4 --lr-wsd-decay-iters 6", None),
        ("--train-samples 100 --lr-warmup-samples 99 --lr-decay-samples 100", None),
        ("--train-samples 100 --lr-decay-style WSD --lr-warmup-fraction 0.5 --lr-wsd-decay-samples 50", None),
        ("--train-samples 4 --global-batch-size 8 --rampup-batch-size 4 2 100", None),
        ("--lr-warmup-fraction 0.1", None),
        ("--full-validation --exit-duration-in-mins 0.5 --no-exit-signal-handler", None),
        ("--weight-decay-incr-style cosine --start-weight-decay 0 --end-weight-decay 0.1", None),
        ("--train-iters 0", None),
        ("--load /nowhere/run --save /nowhere/run/", None),
        ("--split 98,2,0", None),
        ("--tokenizer-type ByteTokenizer", None),
    ],
)
def test_what_works_passes(line, world_size):
    assert dry_problems(line, world_size) == ()


@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_tiny_presets_train_under_four_processes(name, dataset):
    line = (
        f"--model contextlm-{name}-tiny --tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 "
        "--train-iters 5 "
        f"--tokenizer-type ByteTokenizer --data-path {dataset}"
    )
    assert parse(line.split(), {"WORLD_SIZE": "4"}).world_size == 4


def test_what_only_a_run_needs():
    with pytest.raises(UserError) as caught:
        parse(["--transformer-impl", "transformer_engine"], {})
    starts = [problem.split(":")[0] for problem in caught.value.problems]
    assert starts[:3] == ["--train-iters", "--data-path", "--tokenizer-type"]


def test_datasets_are_looked_for(dataset, tmp_path):
    assert dry_problems(f"--data-path {dataset}") == ()
    assert dry_problems(f"--data-path 0.7 {dataset} 0.3 {tmp_path}/b") == ()
    assert dry_problems(f"--data-path {dataset} {tmp_path}/b") == ()
    (problem,) = dry_problems(f"--data-path 0.7 {dataset} 0.3 {tmp_path}/c")
    assert "c.bin and" in problem
    (problem,) = dry_problems(f"--data-path {dataset}.bin")
    assert f"give the prefix, {dataset}" in problem
    (problem,) = dry_problems(f"--data-path {tmp_path}/a_txt_document")
    assert f"did you mean {dataset}?" in problem


def test_checkpoints_are_looked_for(tmp_path):
    (problem,) = dry_problems(f"--load {tmp_path}")
    assert "holds no checkpoint" in problem and "the same folder as --save" in problem
    assert dry_problems(f"--load {tmp_path} --save {tmp_path}") == ()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5")
    assert dry_problems(f"--load {tmp_path} --finetune") == ()
    assert dry_problems(f"--init-backbone-from {tmp_path} --context-chunk-size 4") == ()
    (problem,) = dry_problems(f"--save {tmp_path}/latest_checkpointed_iteration.txt")
    assert "is a file; give a folder" in problem
