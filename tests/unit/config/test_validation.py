"""Values that work together, and files that are looked for; what does not work is in `wrong_command_lines.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import parse
from tests.unit.config.dry_problems import dry_problems


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    for name in ("a_text_document.bin", "a_text_document.idx", "b.bin", "b.idx"):
        (tmp_path / name).write_bytes(b"")
    return str(tmp_path / "a_text_document")


@pytest.mark.parametrize(
    ("line", "world_size"),
    [
        ("", None),
        ("--model contextlm-gpt2-1.5b --tensor-model-parallel-size 5 --pipeline-model-parallel-size 4", 40),
        ("--model contextlm-pythia-1.4b --tensor-model-parallel-size 8 --global-batch-size 64", 32),
        ("--bf16", None),
        ("--fp16 --min-loss-scale 4 --initial-loss-scale 4 --loss-scale-window 10 --hysteresis 1", None),
        ("--fp16 --loss-scale 8", None),
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


@pytest.mark.parametrize("flag", ["--save", "--output-dir", "--tensorboard-dir", "--wandb-project x --wandb-save-dir"])
def test_a_file_is_no_folder_to_write_to(flag, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in (".", "new", "new/er", "new/../other"):
        assert dry_problems(f"{flag} {tmp_path}/{place}") == ()
    for place in ("file", "file/below", "file/far/below", "dangling"):
        (problem,) = dry_problems(f"{flag} {tmp_path}/{place}")
        assert "is a file; give a folder" in problem
