"""The study's pictures as SVG text: paired differences with their intervals, and loss curves.

Read next: `analysis/plots.py`, which draws single runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from contextlm.analysis.plots import COLOURS, smoothed, svg
from contextlm.analysis.run_record import RunRecord

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

    return svg(draw, "differences", height=1.2 + 0.32 * max(1, len(found)))


def loss_picture(records: dict[str, list[RunRecord]]) -> str:
    """Mean training loss over the seeds, smoothed, and the validation points, one colour per arm."""

    def draw(axes: Axes) -> None:
        lowest = []
        for index, (name, runs) in enumerate(records.items()):
            if not runs:
                continue
            colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
            length = min(len(run.training) for run in runs)
            losses = np.mean([_losses(run, length) for run in runs], axis=0)
            curve, step = smoothed(losses), max(1, math.ceil(length / 1000))
            iterations = np.arange(1, length + 1)
            axes.plot(iterations[::step], curve[::step], style, color=colour, label=name, linewidth=1.2)
            points = [line for run in runs for line in run.evaluations if line["split"] == "validation"]
            finite = [line for line in points if isinstance(line["lm_loss"], int | float)]
            axes.plot(
                [line["iteration"] for line in finite], [line["lm_loss"] for line in finite], "o", color=colour, ms=3
            )
            lowest += [float(value) for value in curve[length // 10 :] if math.isfinite(value)]
        if lowest:  # the first tenth falls so far that nothing else could be told apart
            axes.set_ylim(min(lowest) - 0.05, max(lowest) + 0.05)
        axes.set_xlabel("iteration")
        axes.set_ylabel("loss (nats per token)")

    return svg(draw, "losses")


def _losses(run: RunRecord, length: int) -> list[float]:
    """The first training losses; NaN where there is no finite one."""
    values = [line.get("lm_loss") for line in run.training[:length]]
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]
