"""The study's picture: what is written in it can be read, however long the names are."""

from __future__ import annotations

import pytest

from contextlm.analysis.t_interval import interval
from contextlm.comparison.differences import Difference
from contextlm.comparison.pictures import difference_picture
from tests.unit.analysis.drawn import drawn, outside, texts

SHORT = ("plain", "gated", "deeper")
LONG = ("plain_gpt2_of_the_same_depth", "gated_channel_of_chunks_of_eight_tokens", "deeper_plain_model" * 4)
PAIRS = ((1, 0), (2, 0), (2, 1))


def pairs(names: tuple[str, str, str], scale: float) -> list[Difference]:
    found = []
    for arm, baseline in PAIRS:
        by_seed = {seed: scale * (0.01 * arm + 0.003 * seed - 0.02) for seed in (1, 2, 3)}
        found.append(Difference(names[arm], names[baseline], by_seed, interval(list(by_seed.values()))))
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize("names", [SHORT, LONG], ids=["short", "long"])
def test_all_of_it_is_inside(names: tuple[str, str, str], scale: float) -> None:
    figure = drawn(lambda: difference_picture(pairs(names, scale)))
    assert outside(figure) == []
    (axes,) = figure.axes
    assert axes.get_window_extent().width > 0.4 * figure.bbox.width
    written = texts(figure)
    assert "difference of validation loss\n(nats per token), 95% interval" in written
    whole = {text.replace("\n", "").replace(" ", "") for text in written}
    assert {f"{names[arm]}-{names[baseline]}" for arm, baseline in PAIRS} <= whole
    assert axes.xaxis.get_offset_text().get_text() == ""  # it would stand in the label


@pytest.mark.filterwarnings("error")
def test_rows_do_not_touch() -> None:
    figure = drawn(lambda: difference_picture(pairs(LONG, 1.0)))
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(above.y0 > below.y1 for above, below in zip(boxes, boxes[1:], strict=False))
