"""`--print-config` and the saved config.yaml: YAML that reproduces the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import Config, dump, load, parse
from tests.cli.programs import run

LINES = [
    "",
    "--model contextlm-gpt2-124m",
    "--model pythia-1b --bf16 --tensor-model-parallel-size 2 --sequence-parallel --lr 3e-4 --min-lr 0",
    "--model gpt2-tiny --no-use-distributed-optimizer --no-accumulate-allreduce-grads-in-fp32 --eval-iters 0",
    "--fp16 --loss-scale 8 --lr-decay-style WSD --lr-wsd-decay-iters 2 --lr-wsd-decay-style linear",
    "--fp16 --min-loss-scale 0.5 --initial-loss-scale 65536 --hysteresis 3",
    "--num-layers 8 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 8",
    "--num-layers 9 --pipeline-model-parallel-size 3 --decoder-first-pipeline-num-layers 2 "
    "--decoder-last-pipeline-num-layers 3 --recompute-granularity selective --recompute-modules mlp core_attn",
    "--data-path 0.7 a 0.3 b --split 98,2,0 --tokenizer-type ByteTokenizer --save runs/a --load runs/a",
    "--data-path a b",
    "--data-args-path blend.txt --adam-eps 1e-9 --seed 0",
    "--global-batch-size 32 --rampup-batch-size 16 8 1000 --train-iters 1000000 --lr-warmup-iters 10",
    "--lr-decay-style WSD --lr-wsd-decay-iters 10 --train-iters 100 --start-weight-decay 0 --end-weight-decay 1e-1 "
    "--weight-decay-incr-style cosine",
    "--config run.yaml --num-layers 6 --use-mcore-models",
    "--eod-token <|end|> --output-dir 1e5 --save null --context-chunk-size 4 --no-context-shift",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.bin", "a.idx", "b.bin", "b.idx"):
        Path(name).touch()
    Path("blend.txt").write_text("1 a\n3 b\n")
    Path("run.yaml").write_text("model: contextlm-pythia-70m\nlr: 6e-4\ndata_path: [0.5, a, 0.5, b]\n")
    return tmp_path


def printed(line: str) -> tuple[Config, str]:
    config = parse(["--print-config", *line.split()], {}).config
    return config, dump(config)


@pytest.mark.parametrize("line", LINES)
def test_what_is_printed_reads_back_equal(line):
    config, text = printed(line)
    Path("printed.yaml").write_text(text, encoding="utf-8")
    again, same_text = printed("--config printed.yaml")
    assert again == config and same_text == text
    assert load("printed.yaml") == config
    assert parse(["--dry-run", *line.split()], {}).config == config


def test_flags_over_a_printed_file_are_flags_over_the_line():
    Path("printed.yaml").write_text(printed(LINES[2])[1], encoding="utf-8")
    assert printed("--config printed.yaml --lr 1e-3")[0] == printed(LINES[2].replace("3e-4", "1e-3"))[0]
    assert printed("--config printed.yaml --lr 1e-3")[0] != printed(LINES[2])[0]


def test_the_words_of_a_blend_come_from_a_file():
    Path("other.yaml").write_text("data_path: [a]\n")
    config, _ = printed("--data-args-path blend.txt --config other.yaml")
    assert config.data.data_path == ("1", "a", "3", "b"), "a flag wins over the YAML file"
    assert config == printed("--data-path 1 a 3 b")[0]


def test_the_program_prints_and_starts_nothing(folder: Path):
    Path("blend.txt").unlink()
    line = f"--model gpt2-tiny --bf16 --save {folder}/run --num-workers 2"
    done = run("pretrain_contextlm.py", "--print-config", *line.split())
    assert (done.returncode, done.stdout) == (0, printed(line)[1])
    assert done.stderr.startswith("warning: --num-workers 2: not needed") and done.stderr.count("\n") == 1
    assert not (folder / "run").exists()
    # Where the number of processes is known, so is the batch size.
    known = run("pretrain_contextlm.py", "--print-config", "--world-size", "3", *line.split())
    assert known.stdout == done.stdout.replace("global_batch_size: null", "global_batch_size: 3")
    wrong = run("pretrain_contextlm.py", "--print-config", "--num-layers", "0", "--data-path", "nowhere/x")
    assert wrong.returncode == 1 and wrong.stderr.count("error: ") == 2 and wrong.stdout == ""
