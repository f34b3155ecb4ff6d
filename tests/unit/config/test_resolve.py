"""A command line becomes one configuration, or one error with every problem."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contextlm.config import parse
from contextlm.config.fields import all_fields
from contextlm.errors import UserError


def problems_of(line: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        parse(line.split(), environ or {})
    return caught.value.problems


def test_precedence(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: 0.5\nnum_layers: 6\nmodel: gpt2-355m\n", encoding="utf-8")
    preset_only = parse(["--dry-run", "--model", "gpt2-124m"], {}).config
    assert (preset_only.model.num_layers, preset_only.optimizer.lr) == (12, 6e-4)
    over = parse(["--dry-run", "--model", "gpt2-124m", "--config", str(path), "--num-layers", "8"], {}).config
    assert (over.model.num_layers, over.optimizer.lr, over.optimizer.min_lr) == (8, 0.5, 6e-5)
    assert (over.preset, over.model.hidden_size) == ("gpt2-124m", 768), "a flag wins over the preset in the file"
    assert parse(["--dry-run", "--config", str(path)], {}).config.preset == "gpt2-355m"


def test_world_size():
    assert parse(["--dry-run"], {}).world_size is None
    assert parse(["--dry-run"], {"WORLD_SIZE": "4"}).world_size == 4
    assert parse(["--dry-run", "--world-size", "8"], {"WORLD_SIZE": "4"}).world_size == 8
    assert parse(["--dry-run"], {}).dry_run is True
    assert "is not a whole number" in problems_of("--dry-run --world-size two")[0]
    assert "only with --dry-run" in problems_of("--world-size 2")[0]


def test_flags_yaml_preset_bounds_and_combinations_in_one_report(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("weight_decay: -1\nlayers: 4\n", encoding="utf-8")
    found = problems_of(
        f"--config {path} --seed -5 --unknown-thing --async-save --micro-batch-size 0 --min-lr 1 "
        "--hidden-size 100 "
        "--num-attention-heads 3 --tokenizer-type NullTokenizer --train-iters 10 --data-path nowhere/x"
    )
    for fragment in (
        "run.yaml: weight_decay: -1.0 is out of range; give a number >= 0",
        "run.yaml: layers: unknown key",
        "--seed: -5 is out of range",
        "--unknown-thing: unknown flag",
        "--async-save: not supported yet",
        "--micro-batch-size: 0 is out of range; give a whole number >= 1",
        "--min-lr 1: above --lr 0.0006",
        "--num-attention-heads 3: does not divide --hidden-size 100",
        "NullTokenizer: not supported yet",
        "nowhere/x.bin and nowhere/x.idx not found",
    ):
        assert any(fragment in problem for problem in found), fragment
    assert len(found) == 10


def test_nothing_is_concluded_from_a_bad_value():
    assert len(problems_of("--dry-run --num-layers many --pipeline-model-parallel-size 3")) == 1
    assert len(problems_of("--dry-run --model gpt2-125m --tensor-model-parallel-size 3")) == 1
    assert len(problems_of("--dry-run --world-size two --global-batch-size 30 --micro-batch-size 4")) == 1
    missing = problems_of("--train-iters --tokenizer-type ByteTokenizer --data-path nowhere/x")
    assert missing[0] == "--train-iters: a value is missing" and len(missing) == 2


@pytest.mark.parametrize(
    "line",
    [
        "--tensor-model-parallel-size x --global-batch-size 6 --micro-batch-size 4 --world-size 4",
        "--pipeline-model-parallel-size x --num-virtual-stages-per-pipeline-rank 2",
        "--pipeline-model-parallel-size 4 --num-layers 6 --decoder-first-pipeline-num-layers x",
        "--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 4 --decoder-last-pipeline-num-layers x",
        "--recompute-granularity full --recompute-method block --recompute-num-layers 3 "
        "--pipeline-model-parallel-size 2 --decoder-last-pipeline-num-layers x",
        "--recompute-granularity full --recompute-method blok --recompute-num-layers 9",
        "--rampup-batch-size 3 1 10 --micro-batch-size 2 --global-batch-size x",
        "--sequence-parallel --seq-length 3 --tensor-model-parallel-size x",
        "--overlap-param-gather --overlap-grad-reduce x",
    ],
)
def test_nothing_is_concluded_from_what_follows_from_a_bad_value(line):
    (problem,) = problems_of(f"--dry-run {line}")
    assert "is not" in problem or "takes no value" in problem


def test_an_unreadable_file_is_the_only_problem(tmp_path):
    (problem,) = problems_of(f"--config {tmp_path}/absent.yaml")
    assert "absent.yaml: No such file or directory" in problem


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("--num-layers 1.5", "1.5 is not a whole number"),
        ("--num-layers 1e3", "1e3 is not a whole number"),
        ("--lr nan", "nan is not a number"),
        ("--lr 0", "0.0 is out of range; give a number > 0"),
        ("--attention-dropout 1", "give a number >= 0 and <= 0.99"),
        ("--gelu tan", "did you mean tanh?"),
        ("--save=", "the value is empty"),
        ("--recompute-method block --recompute-granularity ful", "did you mean full?"),
    ],
)
def test_single_values(line, fragment):
    (problem,) = problems_of("--dry-run " + line)
    assert fragment in problem


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in all_fields().values():
        assert f"\n  {field.flag} " in text
    assert "[default: 1234]" in text and "{gated,gated_channel,add,norm_add}" in text
    assert text.count("e.g. --") == 8


def test_parsing_imports_neither_torch_nor_megatron():
    code = (
        "import sys; from contextlm.config import parse; parse(['--dry-run', '--model', "
        "'contextlm-gpt2-124m']);"
        "assert not {'torch', 'megatron', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
