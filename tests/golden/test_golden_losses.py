"""The losses of 20 iterations, against a plain text file: `golden_losses.txt`, one `iteration loss` a line.

A change that is meant to change numbers rewrites the file and says so:
    python -m tests.golden.update
"""

from __future__ import annotations

from pathlib import Path

from tests.cli.programs import losses

FILE = Path(__file__).with_name("golden_losses.txt")
TOLERANCE = 1e-3  # relative; other processors and torch versions round otherwise


def test_losses_are_the_golden_ones(twenty_steps: Path) -> None:
    golden = [line.split() for line in FILE.read_text().splitlines() if not line.startswith("#")]
    found = losses(twenty_steps)
    assert [int(iteration) for iteration, _ in golden] == list(range(1, len(found) + 1))
    wrong = [(i, x, g) for (i, g), x in zip(golden, found, strict=True) if abs(x / float(g) - 1) > TOLERANCE]
    assert wrong == []
