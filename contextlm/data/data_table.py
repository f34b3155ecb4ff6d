"""The table with which a run begins: what each split is made of, and how often the run reads it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from contextlm.data.samples import Part, SourcedSamples

PLAIN_WIDTH = 1000  # no line is broken


class Taken(NamedTuple):
    """Samples, and how many of the first of them the run takes.

    Attributes:
        again: whether it takes the same ones again and again, as evaluations do.
    """

    samples: SourcedSamples
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not wanted
    again: bool = False


def data_table(splits: Mapping[str, Taken], console: Console | None = None) -> str:
    """The table, with rules and within the width of a terminal, plain elsewhere.

    Args:
        splits: by name.
        console: where it will be printed; stdout if not given.
    """
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, show_edge=False, pad_edge=False)
    for heading in ("split", "dataset", "weight", "documents", "tokens", "samples", "epochs"):
        left = heading in ("split", "dataset")
        table.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for name, taken in splits.items():
        for number, part in enumerate(taken.samples.parts(taken.count)):
            table.add_row(name if number == 0 else "", *_cells(part, taken.again))
    if console.is_terminal:
        with console.capture() as capture:
            console.print(table, highlight=False)
        return capture.get().rstrip("\n")
    plain = io.StringIO()
    Console(file=plain, width=PLAIN_WIDTH, color_system=None).print(table, highlight=False)
    return "\n".join(line.rstrip() for line in plain.getvalue().splitlines())


def _cells(part: Part, again: bool) -> Sequence[str]:
    epochs = part.taken / part.samples
    return (
        part.prefix,
        f"{part.share:.1%}",
        f"{part.documents:,}",
        f"{part.tokens:,}",
        f"{part.samples:,}",
        f"{epochs:.2f} each time" if again else f"{epochs:.2f}",
    )
