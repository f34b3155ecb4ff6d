"""Datasets of the Hugging Face Hub, `hf://NAME[[:CONFIG]:SPLIT]`; NAME may be a folder made by `save_to_disk`.

A folder is read by rows and can be shared. What is on the Hub is streamed, from the first row to the last, by one
machine. Nothing in a dataset is executed: loading scripts are refused.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from contextlm.data.sources.documents import Place, Unread
from contextlm.data.sources.streams import BLOCK_BYTES
from contextlm.data.sources.tables import Rows, pack, unusable_columns
from contextlm.data.sources.unit import HUB, Unit
from contextlm.errors import UserError

DEFAULT_SPLIT = "train"
STREAMED_ROWS = 64


def find_dataset(given: str) -> Unit:
    """The unit of a `hf://` name. What is on the Hub is not looked at yet.

    Raises:
        UserError: the name has no form, the folder no such split.
    """
    name, _, split = _parsed(given)
    if not is_saved_dataset(os.listdir(name) if os.path.isdir(name) else ()):
        return Unit(given, "hub", 0)
    dataset = _saved(name, split)
    # At least a byte for each row, for the bytes are what divides them.
    size = max(dataset.data.nbytes, dataset.num_rows) if dataset.num_rows else 0
    return Unit(given, "saved", size, start=0, stop=dataset.num_rows)


def is_saved_dataset(names: Collection[str]) -> bool:
    """Whether `save_to_disk` of `datasets` made a folder of these files."""
    return ("state.json" in names and "dataset_info.json" in names) or "dataset_dict.json" in names


def read_dataset(unit: Unit, keys: Sequence[str]) -> Iterator[Rows | Unread]:
    """The rows of a unit.

    Raises:
        UserError: `datasets` cannot open it.
    """
    name, config, split = _parsed(unit.path)
    try:
        dataset = _saved(name, split) if unit.format == "saved" else _streamed(name, config, split)
    except UserError as error:
        raise UserError(f"--input {unit.path}: {error}") from None
    yield from (_saved_rows if unit.format == "saved" else _streamed_rows)(unit, dataset, keys)


def cut(unit: Unit, offset: int) -> tuple[int, int]:
    """First row that begins at byte `offset` of the unit or after it, and that byte, all rows taken as equally long."""
    assert unit.stop is not None
    rows = unit.stop - unit.start
    row = -(-offset * rows // unit.size)
    return unit.start + row, unit.size * row // rows


def _parsed(given: str) -> tuple[str, str | None, str]:
    name, *rest = given.removeprefix(HUB).split(":")
    if not name or len(rest) > 2 or not all(rest):
        raise UserError("a dataset is named hf://NAME, hf://NAME:SPLIT or hf://NAME:CONFIG:SPLIT")
    config = rest[0] if len(rest) == 2 else None
    return name, config, rest[-1] if rest else DEFAULT_SPLIT


def _saved(folder: str, split: str) -> Any:
    import datasets

    try:
        dataset = datasets.load_from_disk(folder)
    except Exception as error:  # It raises whatever its parts raise.
        raise UserError(f"`datasets` cannot open it ({error})") from None
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise UserError(f"no split {split!r}; splits: {', '.join(dataset)}")
        dataset = dataset[split]
    return dataset.with_format("arrow")


def _saved_rows(unit: Unit, dataset: Any, keys: Sequence[str]) -> Iterator[Rows | Unread]:
    assert unit.stop is not None
    reason = unusable_columns(dataset.column_names, keys)
    if reason is not None:
        yield Unread(Place(unit.path, unit.start + 1), reason, unit.size)
        return
    dataset = dataset.select_columns(list(keys))
    rows = unit.stop - unit.start
    step = max(1, BLOCK_BYTES * rows // max(1, unit.size))
    for row in range(0, rows, step):
        end = min(row + step, rows)
        num_bytes = unit.size * end // rows - unit.size * row // rows
        table = dataset[unit.start + row : unit.start + end]
        yield pack(Place(unit.path, unit.start + row + 1), table, num_bytes)


def _streamed(name: str, config: str | None, split: str) -> Any:
    import datasets

    # Versions from 4 on know no scripts and no such option.
    scripts = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}
    try:
        return datasets.load_dataset(name, config, split=split, streaming=True, **scripts).with_format("arrow")
    except Exception as error:  # It raises whatever its parts raise.
        raise UserError(f"`datasets` cannot open it ({error})") from None


def _streamed_rows(unit: Unit, dataset: Any, keys: Sequence[str]) -> Iterator[Rows | Unread]:
    place = Place(unit.path, 1)
    tables = iter(dataset.iter(batch_size=STREAMED_ROWS))
    while True:
        try:
            table = next(tables, None)
        except Exception as error:  # It raises whatever its parts raise.
            raise UserError(f"--input {unit.path}: `datasets` cannot read on at row {place.number} ({error})") from None
        if table is None:
            return
        reason = unusable_columns(table.column_names, keys)
        if reason is not None:
            yield Unread(place, reason, 0)
            return
        yield pack(place, table.select(list(keys)), table.nbytes)
        place = place._replace(number=place.number + table.num_rows)
