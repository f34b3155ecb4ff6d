"""Rows of the layout matrix in which every value, or every pair of values, meets."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from tests.distributed.matrix import FACTORS, MAX_PROCESSES, Row, possible, processes

Meeting = frozenset[tuple[str, Any]]
"""Values of some factors, each with its factor's name."""


def all_meetings(size: int, max_processes: int = MAX_PROCESSES) -> list[Meeting]:
    """Every meeting of that many factors that is possible: with 1 the values alone, with 2 their pairs."""
    return [
        frozenset(zip(names, values, strict=True))
        for names in itertools.combinations(FACTORS, size)
        for values in itertools.product(*(FACTORS[name] for name in names))
        if possible(dict(zip(names, values, strict=True)), max_processes)
    ]


def meetings_of(row: Row, size: int) -> set[Meeting]:
    """Those that a row brings about."""
    return set(map(frozenset, itertools.combinations(row._asdict().items(), size)))


def covering_rows(size: int, max_processes: int = MAX_PROCESSES) -> list[Row]:
    """Rows that bring about every meeting of that size at least once.

    Greedy: each row begins with a meeting that has not been, and takes for every other factor the value that brings
    the most about; of several the one that needs the fewest processes, then the one that was taken least.
    """
    uncovered, taken = set(all_meetings(size, max_processes)), Counter[tuple[str, Any]]()

    def brought(values: dict[str, Any], name: str, x: Any) -> int:
        others = itertools.combinations(values.items(), size - 1)
        return sum(frozenset((*meeting, (name, x))) in uncovered for meeting in others)

    rows: list[Row] = []
    for first in all_meetings(size, max_processes):
        if first not in uncovered:
            continue
        values = dict(first)
        for name in sorted(FACTORS.keys() - values.keys(), key=lambda name: (-len(FACTORS[name]), name)):
            fitting = [x for x in FACTORS[name] if possible(values | {name: x}, max_processes)]
            values[name] = max(
                fitting, key=lambda x: (brought(values, name, x), -processes(**values | {name: x}), -taken[name, x])
            )
        rows.append(Row(**values))
        taken.update(values.items())
        uncovered -= meetings_of(rows[-1], size)
    return rows
