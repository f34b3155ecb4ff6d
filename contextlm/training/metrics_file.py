"""`metrics.jsonl`: one JSON object per iteration and per evaluation, without a gap and without a double."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from contextlm import atomic_files


class MetricsFile:
    """The file of one run.

    Args:
        folder: where it lies; None writes nothing.
    """

    def __init__(self, folder: str | None) -> None:
        self.path = None if folder is None else Path(folder) / "metrics.jsonl"

    def cut_back(self, iteration: int) -> int:
        """Keep what was written up to `iteration` (0: nothing); returns how many lines could not be read."""
        if self.path is None:
            return 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept, unreadable = [], 0
        before = self.path.read_text() if self.path.exists() else None
        if iteration > 0 and before is not None:
            lines = before.splitlines()
            keys = [_key_of(line) for line in lines]
            kept = [line + "\n" for line, key in zip(lines, keys, strict=True) if key and key[0] <= iteration]
            unreadable = keys[:-1].count(None)  # the last one may be half-written by a killed run
        if before != "".join(kept):
            atomic_files.write_bytes(self.path, "".join(kept).encode())
        return unreadable

    def splits_at(self, iteration: int) -> set[str]:
        """Which splits have an evaluation of `iteration`."""
        if self.path is None or not self.path.exists():
            return set()
        keys = map(_key_of, self.path.read_text().splitlines())
        return {key[1] for key in keys if key is not None and key[0] == iteration and key[1] is not None}

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Add finished lines."""
        if self.path is not None and lines:
            with open(self.path, "a") as file:
                file.writelines(_text_of(line) for line in lines)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Put evaluations where those of the same iteration and split are, else after the lines up to it."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line + "\n" for line in self.path.read_text().splitlines()] if self.path.exists() else []
        for line in lines:
            key = line["iteration"], line["split"]
            keys = [_key_of(old) for old in kept]
            if key in keys:
                kept[keys.index(key)] = _text_of(line)
            else:
                after = [n for n, other in enumerate(keys, 1) if other is not None and other[0] <= key[0]]
                kept.insert(max(after, default=0), _text_of(line))
        atomic_files.write_bytes(self.path, "".join(kept).encode())


def _text_of(line: dict[str, Any]) -> str:
    return json.dumps(_without_nan(line)) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _key_of(line: str) -> tuple[int, str | None] | None:
    """The iteration that a line of metrics.jsonl is about, and its split if it has one; None if it is no such line."""
    try:
        content = json.loads(line)
        return int(content["iteration"]), content.get("split")
    except (ValueError, KeyError, TypeError):
        return None
