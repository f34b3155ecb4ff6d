"""The study's picture of its paired differences, as SVG text; its loss curves are those of `analysis/curves.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contextlm.analysis.plots import COLOURS, in_lines, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contextlm.comparison.differences import Difference

_NAME_LETTERS = 26  # in a line beside the axes: more would leave them too little of the page's width
_LINE_HEIGHT = 0.19  # inches


def difference_picture(found: Sequence[Difference]) -> str:
    """A row per pair: seeds as points, the mean with its interval; left of 0 the arm is better."""

    names = [_pair_name(pair) for pair in found]
    most_lines = max((name.count("\n") + 1 for name in names), default=1)

    def draw(axes: Axes) -> None:
        baselines = list(dict.fromkeys(difference.baseline for difference in found))
        for row, difference in enumerate(found):
            colour = COLOURS[baselines.index(difference.baseline) % len(COLOURS)]
            values = list(difference.by_seed.values())
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.4, markersize=4)
            if (known := difference.interval) is not None:
                axes.errorbar(known.mean, row, xerr=known.half_width, fmt="D", color=colour, markersize=5, capsize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(found)), names)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda x, _: f"{round(x, 12) + 0:g}")  # a factor would stand in the label
        axes.set_ylim(max(1, len(found)) - 0.4, -0.6)  # the first pair on top
        axes.set_xlabel("difference of validation loss\n(nats per token), 95% interval")

    row = 0.13 + _LINE_HEIGHT * most_lines
    return svg(draw, "Paired differences", height=1.4 + row * max(1, len(found)))


def _pair_name(pair: Difference) -> str:
    """On one line, if that is short; else the arm and its baseline on lines of their own."""
    name = f"{pair.arm} - {pair.baseline}"
    if len(name) <= _NAME_LETTERS:
        return name
    parts = (pair.arm, f"- {pair.baseline}")
    return "\n".join(in_lines(part, _NAME_LETTERS) for part in parts)
