"""The figure behind a picture's SVG text, laid out as it is saved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def drawn(picture: Callable[[], str]) -> Figure:
    """The figure that `picture` makes."""
    figures: list[Figure] = []
    saved = Figure.savefig

    def save(figure: Figure, *args: object, **options: object) -> None:
        saved(figure, *args, **options)
        figures.append(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        assert "<svg" in picture()
    figures[0].draw_without_rendering()
    return figures[0]


def texts(figure: Figure) -> dict[str, Bbox]:
    """Each text that can be seen, and where it stands."""
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]
    hidden: set[Text] = set()  # of ticks beyond the ends of an axis
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        hidden |= {label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    return {text.get_text(): text.get_window_extent() for text in found if text not in hidden}


def outside(figure: Figure) -> list[str]:
    """Texts that the figure's edge cuts."""
    whole = figure.bbox
    return [
        text
        for text, box in texts(figure).items()
        if box.x0 < whole.x0 or box.y0 < whole.y0 or box.x1 > whole.x1 or box.y1 > whole.y1
    ]
