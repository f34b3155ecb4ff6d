"""The report's pictures: one colour for each group of runs, in all of them.

Of several seeds: each one pale, their mean bold, and around it, from three seeds on, the 95% interval of that mean
(Student's t, at each iteration by itself). Read next: `plots.py`, how a picture becomes text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contextlm.analysis.plots import colour_of, finite, smoothed, style_of, svg, thinned
from contextlm.analysis.run_history import skipped
from contextlm.analysis.run_record import RunRecord
from contextlm.analysis.seed_groups import SeedGroup
from contextlm.analysis.t_interval import t_quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Groups = Sequence[SeedGroup]
Series = tuple[np.ndarray, np.ndarray]  # iterations, values; both [n]

_MARKERS = "os^Dv"  # of the validation sets of a run


def loss_plot(groups: Groups, *, log_x: bool = False) -> str:
    """Training loss, smoothed, and the validation losses as points; dashed where a run went on with other options."""

    def draw(axes: Axes) -> None:
        drawn: list[Series] = []
        for index, group in enumerate(groups):
            curves = [series(run.training, "lm_loss") for run in group.runs]
            drawn.append(_draw(axes, index, group.name, curves, smooth=True, band=True))
            drawn += _draw_validation(axes, index, group)
            for change in (change for run in group.runs for change in run.changes):
                axes.axvline(change.iteration, color=colour_of(index), linestyle="--", linewidth=1)
            _draw_events(axes, index, group)
        axes.set_ylim(*limits(drawn))
        if log_x and any(len(iterations) for iterations, _ in drawn):
            axes.set_xscale("log")
        axes.set_xlabel("iteration")
        axes.set_ylabel("loss (nats per token)")

    name = "Loss by iteration, logarithmic" if log_x else "Loss by iteration"
    return svg(draw, name, words=_told(groups, "lm_loss"))


def gradient_norm_plot(groups: Groups) -> str:
    """Gradient norm before clipping, on a logarithmic scale; crosses: iterations that updated nothing."""

    def draw(axes: Axes) -> None:
        for index, group in enumerate(groups):
            curves = [series(run.training, "grad_norm") for run in group.runs]
            _draw(axes, index, group.name, curves, smooth=False, band=False)
            _draw_events(axes, index, group)
            if any(np.any(values > 0) for _, values in curves):
                axes.set_yscale("log")
        if axes.get_yscale() == "log":
            low, high = axes.get_ylim()
            labelled = "123456789" if high < 10 * low else "25"
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in labelled else "")
        axes.set_xlabel("iteration")
        axes.set_ylabel("gradient norm")

    return svg(draw, "Gradient norm by iteration", words=_told(groups, "grad_norm"))


def column_plot(
    groups: Groups, key: str, name: str, unit: str, *, scale: float = 1.0, floor: float | None = 0.0
) -> str:
    """One column of the training lines, where they have it, times `scale`; empty where no run has it."""

    def known(run: RunRecord) -> Series:
        iterations, values = series(run.training, key, scale)
        return iterations[np.isfinite(values)], values[np.isfinite(values)]

    return _plot(groups, known, name, unit, floor=floor)


def worth_plot(groups: Groups) -> str:
    """How much the validation loss rises with zero in place of the predictions; empty without a context head."""

    def worth(run: RunRecord) -> Series:
        lines = [line for line in run.evaluations if line["split"] == "validation"]
        (iterations, zeroed), (_, losses) = series(lines, "lm_loss_context_zeroed"), series(lines, "lm_loss")
        return iterations, zeroed - losses

    return _plot(groups, worth, "What the context is worth", "rise of the loss (nats per token)", points=True)


def position_plot(groups: Groups) -> str:
    """The last validation loss at each position of a chunk; empty without a context head."""

    def by_position(run: RunRecord) -> Series:
        lines = [line.get("lm_loss_by_position") for line in run.evaluations if line["split"] == "validation"]
        last = next((values for values in reversed(lines) if isinstance(values, list)), [])
        return np.arange(len(last), dtype=float), np.array([finite(value) for value in last])

    unit = "loss (nats per token)"
    return _plot(groups, by_position, "Loss by position in a chunk", unit, points=True, x="position in the chunk")


def series(lines: Sequence[dict[str, Any]], key: str, scale: float = 1.0) -> Series:
    """A column by iteration; NaN where there is no finite number."""
    found = {finite(line.get("iteration")): finite(line.get(key)) * scale for line in lines}
    iterations = np.array(sorted(n for n in found if np.isfinite(n)))
    return iterations, np.array([found[n] for n in iterations], dtype=float)


def mean_and_interval(curves: Sequence[Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(iterations, mean, half width of the mean's 95% interval) over two or more seeds, all [n].

    Only of iterations that all of them have reached: a mean over fewer would jump where one ends.
    """
    shared = np.array(sorted(set.intersection(*(set(iterations.tolist()) for iterations, _ in curves))))
    rows = np.array([values[np.isin(iterations, shared)] for iterations, values in curves])
    spread = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    return shared, rows.mean(axis=0), t_quantile(0.95, len(rows) - 1) * spread


def _plot(
    groups: Groups,
    of: Callable[[RunRecord], Series],
    name: str,
    unit: str,
    *,
    points: bool = False,
    floor: float | None = None,
    x: str = "iteration",
) -> str:
    """A curve for each group that has numbers; empty if none has.

    Args:
        points: a few points, each of which is to be seen; else they are smoothed.
        floor: where the axis begins.
    """
    curves = {index: [of(run) for run in group.runs] for index, group in enumerate(groups)}
    known = {i: own for i, own in curves.items() if all(np.any(np.isfinite(values)) for _, values in own)}

    def draw(axes: Axes) -> None:
        for index, own in known.items():
            _draw(axes, index, groups[index].name, own, smooth=not points, band=points, marker="o" if points else "")
        axes.set_ylim(bottom=floor)
        locator: Any = axes.xaxis.get_major_locator()
        locator.set_params(integer=True)
        axes.set_xlabel(x)
        axes.set_ylabel(unit)

    words = "; ".join(_ends(groups[index].name, own[0], x) for index, own in known.items())
    return svg(draw, name, words=words) if known else ""


def _draw(
    axes: Axes, index: int, label: str, curves: Sequence[Series], *, smooth: bool, band: bool, marker: str = ""
) -> Series:
    """The curves of one group, and their mean with its interval if there are several; returns the bold one."""
    look: dict[str, Any] = {"color": colour_of(index), "linestyle": style_of(index)}
    bold = [(iterations, smoothed(values) if smooth else values) for iterations, values in curves]
    if smooth or len(curves) > 1:
        for iterations, values in curves if len(curves) == 1 else bold:
            axes.plot(*thinned(iterations, values), alpha=0.3, linewidth=0.7, **look)
    if len(curves) == 1:
        iterations, mean = bold[0]
    else:
        iterations, mean, half = mean_and_interval(bold)
        if band and len(curves) > 2:  # of two seeds it is 13 standard errors wide, and hides what is there
            axes.fill_between(*_band(iterations, mean, half), color=colour_of(index), alpha=0.15, linewidth=0)
    axes.plot(*thinned(iterations, mean), label=label, marker=marker, markersize=4, linewidth=1.6, **look)
    return iterations, mean


def limits(drawn: Sequence[Series]) -> tuple[float | None, float | None]:
    """Room for what comes after the first tenth: that falls so far that nothing else could be told apart."""
    last = max((iterations.max() for iterations, _ in drawn if len(iterations)), default=0.0)
    parts = [values[(iterations > last / 10) & np.isfinite(values)] for iterations, values in drawn]
    later = np.concatenate([np.empty(0), *parts])
    if not len(later):
        return None, None
    room = 0.05 + 0.05 * (later.max() - later.min())
    return later.min() - room, later.max() + room


def _band(iterations: np.ndarray, mean: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterations and both edges of an interval, every so many points."""
    step = 1 + len(iterations) // 500
    return iterations[::step], (mean - half)[::step], (mean + half)[::step]


def _draw_validation(axes: Axes, index: int, group: SeedGroup) -> list[Series]:
    """Points of each validation set; of several seeds their mean with its interval. Returns them."""
    splits = dict.fromkeys(split for run in group.runs for split in run.by_split if split != "test")
    drawn = []
    for split, marker in zip(splits, itertools.cycle(_MARKERS)):
        curves = [series(run.by_split.get(split, []), "lm_loss") for run in group.runs]
        look: dict[str, Any] = {"color": colour_of(index), "markersize": 5, "markeredgecolor": "white"}
        iterations, values = curves[0]
        half = None
        if len(curves) > 1:
            iterations, values, half = mean_and_interval(curves)
        label = f"{group.name}, {split}" if len(splits) > 1 else None
        axes.errorbar(iterations, values, half, fmt=marker, label=label, elinewidth=1, **look)
        drawn.append((iterations, values))
    return drawn


def _draw_events(axes: Axes, index: int, group: SeedGroup) -> None:
    """At the foot of the picture: triangles where a run was continued, crosses where an iteration was skipped."""
    at_foot: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "linestyle": "", "color": colour_of(index)}
    begun = [event.get("iteration") for run in group.runs for event in run.events if event["what"] == "begin"]
    continued = [iteration for iteration in begun if isinstance(iteration, int) and iteration > 0]
    crosses = [iteration for run in group.runs for iteration in skipped(run)]
    axes.plot(continued, [0.025] * len(continued), marker="^", markersize=6, **at_foot)
    crosses = crosses[:: 1 + len(crosses) // 300]  # of fp16 there may be thousands
    axes.plot(crosses, [0.025] * len(crosses), marker="x", markersize=6, **at_foot)


def _told(groups: Groups, key: str) -> str:
    """The ends of the curves, in words."""
    return "; ".join(_ends(run.name, series(run.training, key), "iteration") for group in groups for run in group.runs)


def _ends(name: str, curve: Series, x: str) -> str:
    known = np.isfinite(curve[1])
    places, values = curve[0][known], curve[1][known]
    if not len(values):
        return f"{name}: no numbers"
    return f"{name}: {values[0]:.4g} at {x} {places[0]:.0f}, {values[-1]:.4g} at {x} {places[-1]:.0f}"
