"""One machine's part of the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from contextlm.data.sources.units import Unit


def share(units: Sequence[Unit], num_shards: int, shard: int) -> list[Unit]:
    """The part of shard `shard` of `num_shards`, both from 0.

    The shards one after another are `units`, in order; they are balanced by size in the files. Plain JSON lines are
    cut at line ends. What cannot be cut, a compressed file or stdin, belongs whole to the shard in whose part it
    begins.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard {shard} of {num_shards}")
    total = sum(unit.size for unit in units)
    low, high = total * shard // num_shards, total * (shard + 1) // num_shards
    last = shard == num_shards - 1
    found: list[Unit] = []
    position = 0
    for unit in units:
        if unit.format == "json" and not unit.compression and unit.stop is not None:
            start = _line_start(unit, low - position)
            stop = unit.stop if last else _line_start(unit, high - position)
            if start < stop:
                found.append(dataclasses.replace(unit, start=start, stop=stop, size=stop - start))
        elif low <= position and (position < high or last):
            found.append(unit)
        position += unit.size
    return found


def _line_start(unit: Unit, offset: int) -> int:
    """Byte of the file at which the first line begins that begins at `offset` of the unit or after it."""
    assert unit.stop is not None
    place = unit.start + offset
    if place <= unit.start:
        return unit.start
    if place >= unit.stop:
        return unit.stop
    with open(unit.path, "rb") as stream:
        stream.seek(place - 1)
        while block := stream.read(1 << 16):
            if end := block.find(b"\n") + 1:
                return min(stream.tell() - len(block) + end, unit.stop)
    return unit.stop
