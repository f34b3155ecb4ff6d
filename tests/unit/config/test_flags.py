"""The grammar of the command line."""

from __future__ import annotations

import pytest

from contextlm.config.fields import all_fields
from contextlm.config.flags import FlagReading, read_flags


def read(line: str) -> FlagReading:
    return read_flags(line.split(), all_fields())


def test_forms_of_a_flag():
    reading = read(
        "--num-layers 6 --lr=6e-4 --bf16 --no-context-shift --data-path 0.7 a 0.3 b --dry-run --model gpt2-tiny"
    )
    assert reading.problems == []
    assert reading.fields == {
        "num_layers": "6",
        "lr": "6e-4",
        "bf16": True,
        "context_shift": False,
        "data_path": ("0.7", "a", "0.3", "b"),
    }
    assert reading.program == {"dry-run": True, "model": "gpt2-tiny"}


def test_words_that_begin_with_one_dash_are_values():
    reading = read("--split -1,1,0 --seed -5 --min-lr=-1")
    assert reading.problems == []
    assert reading.fields == {"split": "-1,1,0", "seed": "-5", "min_lr": "-1"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--num-layers", "--num-layers: a value is missing"),
        ("--num-layers --bf16", "--num-layers: a value is missing"),
        ("--data-path", "--data-path: a value is missing"),
        ("--num-layers 1 2", "--num-layers: takes one value, but was given 1 2"),
        ("--bf16 true", "--bf16: takes no value, but was given true; write --bf16 alone"),
        ("--bf16=false", "--bf16: takes no value, but was given false; write --bf16 alone"),
        ("--lr 1 --lr 1", "--lr: given twice; keep one"),
        ("--bf16 --no-bf16", "--no-bf16: given twice (as --bf16 and --no-bf16); keep one"),
        ("--dry-run --dry-run", "--dry-run: given twice; keep one"),
        ("stray", "stray: a value without a flag before it; flags begin with --, see --help"),
        ("--num_layers 4", "--num_layers: unknown flag; did you mean --num-layers?"),
        ("--num-layer 4", "--num-layer: unknown flag; did you mean --num-layers?"),
        ("--tensor 2", "--tensor: unknown flag; did you mean --tensor-model-parallel-size?"),
        ("--no-num-layers", "--no-num-layers: unknown flag; did you mean --num-layers?"),
        ("--contxt-shift", "--contxt-shift: unknown flag; did you mean --context-shift?"),
        ("--zzzzzzzz 1", "--zzzzzzzz: unknown flag; see --help"),
    ],
)
def test_each_mistake_has_its_sentence(line, problem):
    assert read(line).problems == [problem]


def test_mistakes_are_collected_and_name_their_fields():
    reading = read("--num-layers --lr 1 2 --nonsense-flag --bf16")
    assert len(reading.problems) == 3
    assert reading.bad == {"num_layers", "lr"}
    assert reading.fields == {"bf16": True}
