"""Plots of runs as SVG text that can stand inside a page: no files, no display, no shared figure state.

Read next: `report.py`, the page around them.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contextlm.analysis.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with every common kind of colour blindness, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "os^Dv"  # of the validation sets of a run
_WIDTH, _HEIGHT = 6.4, 4.0  # inches: on a phone's 360 points the text keeps three quarters of its size
_MAX_POINTS = 1000  # per curve: what a screen can show, whatever the length of the run


def loss_plot(runs: Sequence[RunRecord]) -> str:
    """Training loss (pale: every iteration; bold: smoothed), validation points, continuations."""

    def draw(axes: Axes) -> None:
        for run, colour in zip(runs, _colours(runs), strict=True):
            iterations, losses = _series(run.training, "lm_loss")
            axes.plot(*_thinned(iterations, losses), color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(*_thinned(iterations, smoothed(losses)), color=colour, label=run.name, linewidth=1.8)
            validations = {split: lines for split, lines in run.by_split.items() if split != "test"}
            for (split, points), marker in zip(validations.items(), itertools.cycle(_MARKERS)):
                axes.plot(
                    *_series(points, "lm_loss"),
                    marker,
                    color=colour,
                    markersize=5,
                    markeredgecolor="white",
                    label=f"{run.name}, {split}",
                )
            for change in run.changes:
                axes.axvline(
                    change.iteration, color=colour, linestyle="--", linewidth=1, label=f"{run.name} continued otherwise"
                )
        axes.set_xlabel("iteration")
        axes.set_ylabel("loss (nats per token)")

    return svg(draw, "loss by iteration")


def gradient_norm_plot(runs: Sequence[RunRecord]) -> str:
    """Gradient norm before clipping, on a logarithmic scale."""

    def draw(axes: Axes) -> None:
        for run, colour in zip(runs, _colours(runs), strict=True):
            iterations, norms = _series(run.training, "grad_norm")
            axes.plot(*_thinned(iterations, norms), color=colour, label=run.name, linewidth=1)
            if np.any(norms > 0):
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("iteration")
        axes.set_ylabel("gradient norm")

    return svg(draw, "gradient-norm by iteration")


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over the last thirtieth of the points; a point is never mixed with later ones.

    Args:
        values: [n], NaN where a value is unknown; those stay NaN and count for no other point.
    """
    window = max(1, len(values) // 30)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
    return np.where(known, means, np.nan)


def _colours(runs: Sequence[RunRecord]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(runs))]


def _series(lines: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(iterations, values) of a column, both [n]; NaN where there is no finite number."""
    values = [line.get(key) for line in lines]
    numbers = [
        float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan for value in values
    ]
    return np.array([line["iteration"] for line in lines], dtype=float), np.array(numbers, dtype=float)


def _thinned(iterations: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, math.ceil(len(values) / _MAX_POINTS))
    return iterations[::step], values[::step]


def svg(draw: Callable[[Axes], None], name: str, height: float = _HEIGHT) -> str:
    """What `draw` puts on one pair of axes, with a legend where something has a label.

    Args:
        name: what the picture shows, for those who cannot see it.
        height: in inches; the width is that of a page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The salt makes the ids inside the picture depend on its name only: equal runs give equal pages.
    settings = {"svg.hashsalt": name, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25, linewidth=0.6)
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # a page has no place for the XML prologue and its DTD's address
    label = f'role="img" aria-label="{name}"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', label, text, count=1)  # the page gives the size
