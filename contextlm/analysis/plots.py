"""Pictures as SVG text: no files, no shared figure state. What they show: `curves.py`, `comparison/pictures.py`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart with every common kind of colour blindness, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_WIDTH, _HEIGHT = 5.6, 3.5  # inches: on a phone the letters keep nine tenths of their size
_COLUMN_LETTERS = 22  # of a label, for which the legend has room in each of two columns
_MAX_POINTS = 1000  # per curve: what a screen can show, whatever the length of the run


def colour_of(index: int) -> str:
    """Of the run, or of the group of runs, with this place in the order of the page: the same in every picture."""
    return COLOURS[index % len(COLOURS)]


def style_of(index: int) -> str:
    """When the colours are used up, the next ones are dashed."""
    return ("-", "--", ":", "-.")[index // len(COLOURS) % 4]


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


def thinned(iterations: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No more points than can be seen, both [n]: of each stretch the least and the greatest, so that spikes stay."""
    if len(values) <= _MAX_POINTS:
        return iterations, values
    kept = [0, len(values) - 1]
    for stretch in np.array_split(np.arange(len(values)), _MAX_POINTS // 2):
        finite = stretch[np.isfinite(values[stretch])]
        kept += [finite[values[finite].argmin()], finite[values[finite].argmax()]] if len(finite) else [stretch[0]]
    chosen = np.unique(kept)
    return iterations[chosen], values[chosen]


def svg(draw: Callable[[Axes], None], name: str, height: float = _HEIGHT, words: str = "") -> str:
    """What `draw` puts on one pair of axes, with a legend where something has a label.

    Args:
        name: what the picture shows.
        height: in inches; the width is that of a page.
        words: what it shows, at more length, for those who cannot see it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The salt makes the ids inside the picture depend on its name only: equal runs give equal pages.
    settings: Any = {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 11}
    with rc_context(settings | {"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)  # a factor above the axis meets the legend
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        if labels:  # above the curves, in room of its own
            columns = 2 if max(map(len, labels)) <= _COLUMN_LETTERS else 1
            labels = [in_lines(label, 2 * _COLUMN_LETTERS) for label in labels]
            num_lines = sum(label.count("\n") + 1 for label in labels)
            figure.set_figheight(height + 0.22 * math.ceil(num_lines / columns))
            axes.legend(
                handles,
                labels,
                frameon=False,
                fontsize=10,
                ncols=columns,
                loc="lower left",
                bbox_to_anchor=(-0.05, 1.0),
            )
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # a page has no place for the XML prologue and its DTD's address
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # a page has several pictures, and an id only once
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)  # coordinates, and no words
    label = f'role="img" aria-label="{escape(f"{name}. {words}".strip())}"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', lambda _: label, text, count=1)  # the page gives the size


def in_lines(name: str, most_letters: int) -> str:
    """Broken where it is too long for a line: behind a sign between its words, else anywhere."""
    lines = [""]
    for part in re.findall(rf"[^-_./ ]{{0,{most_letters - 1}}}[-_./ ]|[^-_./ ]{{1,{most_letters}}}", name):
        if len(lines[-1]) + len(part.rstrip()) > most_letters:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def finite(value: object) -> float:
    """A number of a JSON line; NaN where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan
