"""Sizes of files and memory, in words for people."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size(num_bytes: float) -> str:
    """Such as `1.6 GB`."""
    power = 0
    while num_bytes >= 1000 and power < len(_UNITS) - 1:
        num_bytes, power = num_bytes / 1000, power + 1
    return f"{num_bytes:.{1 if power and num_bytes < 100 else 0}f} {_UNITS[power]}"
