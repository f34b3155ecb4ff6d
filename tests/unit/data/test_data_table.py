"""The table at the start: what each split is made of and how often the run reads it."""

from __future__ import annotations

import io
import re

from rich.console import Console

from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.data_table import Taken, data_table
from contextlm.data.samples import EpochSamples


def samples(make_dataset, name: str, length: int) -> EpochSamples:
    return EpochSamples(make_dataset([length] * 100, name), slice(None), 10, seed=1)


def table(make_dataset, console: Console | None = None) -> str:
    a, b, c = (samples(make_dataset, *each) for each in (("a", 30), ("b", 500), ("c", 20)))
    splits = {"training": Taken(BlendedSamples([a, b], [3.0, 1.0]), 4000), "validation": Taken(c, 50, again=True)}
    return data_table(splits, console)


def test_plain(make_dataset, tmp_path) -> None:
    lines = table(make_dataset, Console(file=io.StringIO())).splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines]
    assert cells == [
        ["split", "dataset", "weight", "documents", "tokens", "samples", "epochs"],
        ["training", f"{tmp_path}/a", "75.0%", "100", "3,000", "299", "10.03"],
        [f"{tmp_path}/b", "25.0%", "100", "50,000", "4,999", "0.20"],
        ["validation", f"{tmp_path}/c", "100.0%", "100", "2,000", "199", "0.25 each time"],
    ]
    assert "\x1b" not in "".join(lines) and all(line == line.rstrip() for line in lines)


def test_at_a_terminal_it_keeps_to_the_width(make_dataset) -> None:
    text = table(make_dataset, Console(file=io.StringIO(), force_terminal=True, width=90))
    visible = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
    assert "─" in visible[1] and max(map(len, visible)) <= 90
    for number in ("75.0%", "50,000", "10.03", "0.25 each time"):
        assert any(number in line for line in visible)
