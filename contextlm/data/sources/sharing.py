"""One machine's part of the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from contextlm.data.sources import hub, parquet
from contextlm.data.sources.unit import Unit


def share(units: Sequence[Unit], num_shards: int, shard: int) -> list[Unit]:
    """The part of shard `shard` of `num_shards`, both counted from 0.

    The shards one after another are `units`, in order; they are balanced by bytes of the files. Plain JSON lines are
    cut at line ends, parquet files between row groups, saved datasets between rows. What cannot be cut belongs whole
    to the shard in whose part it begins: compressed and text files, stdin, streamed datasets.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard {shard} of {num_shards}")
    if num_shards == 1:
        return list(units)
    total = sum(unit.size for unit in units)
    low, high = total * shard // num_shards, total * (shard + 1) // num_shards
    last = shard == num_shards - 1
    found: list[Unit] = []
    position = 0
    for unit in units:
        end = position + unit.size
        begins_here = low <= position and (position < high or last)
        if begins_here and end <= high:
            found.append(unit)
        elif position < high and end > low:  # It goes over a bound.
            part = _part(unit, low - position, high - position)
            if part is None and begins_here:
                found.append(unit)
            elif part is not None and part.start != part.stop:
                found.append(part)
        position = end
    return found


def _part(unit: Unit, low: int, high: int) -> Unit | None:
    """The unit from byte `low` to byte `high` of it, each moved on to where it can be cut; None if it cannot be."""
    try:
        start, begin = _cut(unit, low) if low > 0 else (unit.start, 0)
        stop, end = _cut(unit, high) if high < unit.size else (unit.stop, unit.size)
    except _Whole:
        return None
    return dataclasses.replace(unit, start=start, stop=stop, size=end - begin)


class _Whole(Exception):
    """A unit that cannot be cut."""


def _cut(unit: Unit, offset: int) -> tuple[int, int]:
    """First place at byte `offset` of the unit or after it where it can be cut, and the byte of the unit there."""
    if unit.format == "json" and unit.stop is not None:
        place = _line_start(unit, unit.start + offset)
        return place, place - unit.start
    if unit.format == "saved":
        return hub.cut(unit, offset)
    if unit.format == "parquet":
        try:
            return parquet.cut(unit, offset)
        except parquet.NotParquet:
            raise _Whole from None
    raise _Whole


def _line_start(unit: Unit, place: int) -> int:
    """Where the first line begins that begins at byte `place` of the file or after it."""
    assert unit.stop is not None
    with open(unit.path, "rb") as stream:
        stream.seek(place - 1)
        while block := stream.read(1 << 16):
            if end := block.find(b"\n") + 1:
                return min(stream.tell() - len(block) + end, unit.stop)
    return unit.stop
