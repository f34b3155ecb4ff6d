"""The grammar of the command line."""

from __future__ import annotations

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


def test_mistakes_are_collected_and_name_their_fields():
    reading = read("--num-layers --lr 1 2 --nonsense-flag --bf16")
    assert len(reading.problems) == 3
    assert reading.bad == {"num_layers", "lr"}
    assert reading.fields == {"bf16": True}
