"""What a mistyped name was probably meant to be, and which numbers near one that fails would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `name`; one that begins with it is preferred; None if nothing is near."""
    candidates = sorted(known)
    for candidate in candidates:
        if len(name) > 3 and candidate.startswith(name):
            return candidate
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return near[0] if near else None


def nearest_numbers(value: int, working: Iterable[int], count: int = 3) -> str:
    """Up to `count` of the `working` numbers, the nearest to `value`, as text in rising order."""
    chosen = sorted(sorted(working, key=lambda number: (abs(number - value), number))[:count])
    return " or ".join(str(number) for number in chosen)


def nearest_multiples(value: int, unit: int) -> str:
    """The multiples of `unit` on both sides of a `value` that is none, as text in rising order."""
    below = value // unit * unit
    return nearest_numbers(value, (multiple for multiple in (below, below + unit) if multiple))


def divisors(*numbers: int) -> list[int]:
    """The numbers that divide every one of `numbers`."""
    return [d for d in range(1, min(numbers) + 1) if all(number % d == 0 for number in numbers)]
