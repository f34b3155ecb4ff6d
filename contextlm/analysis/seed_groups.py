"""Runs that differ in nothing but their seed belong together: one curve with an interval."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from contextlm.analysis.run_record import PLACES, RunRecord

_BETWEEN = "-_./= "


class SeedGroup(NamedTuple):
    """Some runs under one name; several of them have the same options but for the seed, which is another in each."""

    name: str
    runs: tuple[RunRecord, ...]


def seed_groups(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """The runs, grouped, in the order in which each group's first one comes.

    A run whose options are not known, or whose seed another run of its group has already, is a group by itself:
    an interval over runs of one seed would be no interval over seeds.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        options = {name: value for name, value in run.config.items() if name not in PLACES | {"seed"}}
        key = repr(sorted(options.items())) if "seed" in run.config else run.name
        seeds = {other.config["seed"] for other in groups.get(key, ())}
        groups.setdefault(run.name if run.config.get("seed") in seeds else key, []).append(run)
    return [SeedGroup(_name(found, number), tuple(found)) for number, found in enumerate(groups.values(), 1)]


def _name(runs: Sequence[RunRecord], number: int) -> str:
    """What the names of its runs begin with."""
    if len(runs) == 1:
        return runs[0].name
    start = os.path.commonprefix([run.name for run in runs]).rstrip("0123456789").rstrip(_BETWEEN)
    start = re.sub(r"(^|[-_./= ])(seed|run|s)$", "", start).rstrip(_BETWEEN)
    return f"{start or f'group {number}'}, {len(runs)} seeds"
