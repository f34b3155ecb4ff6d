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
            numbers = [_iteration_of(line) for line in lines]
            kept = [line + "\n" for line, n in zip(lines, numbers, strict=True) if n is not None and n <= iteration]
            unreadable = numbers[:-1].count(None)  # the last one may be half-written by a killed run
        if before != "".join(kept):
            atomic_files.write_bytes(self.path, "".join(kept).encode())
        return unreadable

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Add finished lines."""
        if self.path is not None and lines:
            with open(self.path, "a") as file:
                file.writelines(json.dumps(_without_nan(line)) + "\n" for line in lines)


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _iteration_of(line: str) -> int | None:
    """The iteration that a line of metrics.jsonl is about; None if it is no such line."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return None
