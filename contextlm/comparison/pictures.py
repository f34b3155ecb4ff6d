"""The study's picture of its paired differences, as SVG text; its loss curves are those of `analysis/curves.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contextlm.analysis.plots import COLOURS, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contextlm.comparison.differences import Difference


def difference_picture(found: Sequence[Difference]) -> str:
    """A row per pair: seeds as points, the mean with its interval; left of 0 the arm is better."""

    def draw(axes: Axes) -> None:
        baselines = list(dict.fromkeys(difference.baseline for difference in found))
        for row, difference in enumerate(found):
            colour = COLOURS[baselines.index(difference.baseline) % len(COLOURS)]
            values = list(difference.by_seed.values())
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.4, markersize=4)
            if (known := difference.interval) is not None:
                axes.errorbar(known.mean, row, xerr=known.half_width, fmt="D", color=colour, markersize=5, capsize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(found)), [f"{pair.arm} - {pair.baseline}" for pair in found])
        axes.set_ylim(max(1, len(found)) - 0.4, -0.6)  # the first pair on top
        axes.set_xlabel("difference of validation loss (nats per token), 95% interval")

    return svg(draw, "Paired differences", height=1.2 + 0.32 * max(1, len(found)))
