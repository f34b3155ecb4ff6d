"""The numbers behind the pictures: smoothing, means over seeds, points that are left out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from contextlm.analysis.curves import limits, loss_plot, mean_and_interval, worth_plot
from contextlm.analysis.plots import colour_of, in_lines, smoothed, svg, thinned
from contextlm.analysis.run_record import read_runs
from contextlm.analysis.seed_groups import seed_groups
from tests.unit.analysis.drawn import drawn, outside, texts
from tests.unit.analysis.report_runs import write_lines, write_run


def test_smoothing_uses_no_later_point_and_skips_unknown_ones() -> None:
    values = np.arange(90, dtype=float)
    values[50] = np.nan
    result = smoothed(values)
    changed = values.copy()
    changed[60:] = 1e6
    assert np.array_equal(smoothed(changed)[:60], result[:60], equal_nan=True)
    assert result[10] == pytest.approx(9.0)  # the window is 3: the mean of 8, 9, 10
    assert np.isnan(result[50]) and result[51] == pytest.approx((49 + 51) / 2)


def test_thinning_keeps_spikes_and_ends() -> None:
    iterations, values = np.arange(100_000.0), np.sin(np.arange(100_000.0))
    values[12_345], values[54_321] = 1000.0, np.nan
    kept, found = thinned(iterations, values)
    assert len(kept) <= 1002 and kept[0] == 0 and kept[-1] == 99_999 and found.max() == 1000.0
    assert kept[found.argmax()] == 12_345 and np.all(np.diff(kept) > 0)
    assert thinned(iterations, np.full(100_000, np.nan))[0].size <= 1002


def test_mean_over_seeds_goes_as_far_as_all_have_come() -> None:
    curves = [
        (np.array([1.0, 2.0, 3.0]), np.array([4.0, 3.0, 2.0])),
        (np.array([1.0, 2.0]), np.array([4.2, 3.0])),
        (np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.4, np.nan, 2.0, 1.0])),
    ]
    iterations, mean, half = mean_and_interval(curves)
    assert iterations.tolist() == [1, 2] and mean[0] == pytest.approx(4.2) and np.isnan(mean[1])
    assert half[0] == pytest.approx(4.3027 * 0.2 / np.sqrt(3), rel=1e-4)


def test_a_group_of_seeds_is_one_colour_with_a_band(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"a-seed{seed}", seed=seed, iterations=20) for seed in (1, 2, 3)]
    folders.append(write_run(tmp_path / "b", chunk_size=0, iterations=20))
    groups = seed_groups(read_runs(folders))
    drawn = []
    legend_of = lambda axes, *args, **kwargs: drawn.extend(axes.get_legend_handles_labels()[1])  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.axes.Axes.legend", legend_of)
        picture = loss_plot(groups)
    assert drawn == ["a, 3 seeds", "b"]  # a single validation set needs no name
    strokes = [len(re.findall(f"stroke: {colour_of(index).lower()}", picture)) for index in (0, 1)]
    assert min(strokes) > 1 and colour_of(2).lower() not in picture
    assert picture.count("fill-opacity: 0.15") == 1


@pytest.mark.filterwarnings("error")
def test_a_small_effect_has_plain_numbers(tmp_path: Path) -> None:
    """A factor above the axis would stand in the legend."""
    lines = [
        {"iteration": n, "split": "validation", "lm_loss": 4.0, "lm_loss_context_zeroed": 4.0 + n * 1e-6}
        for n in (10, 20, 30)
    ]
    folder = write_run(tmp_path / "a")
    write_lines(folder / "metrics.jsonl", lines)
    figure = drawn(lambda: worth_plot(seed_groups(read_runs([folder]))))
    assert figure.axes[0].yaxis.get_offset_text().get_text() == ""
    assert any(text.startswith("0.00001") for text in texts(figure)) and outside(figure) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["short", "a_model_whose_name_is_long", "a_name_for_more_than_one_line_" * 3])
def test_legends_leave_the_curves_their_room(tmp_path: Path, name: str) -> None:
    groups = seed_groups(read_runs([write_run(tmp_path / f"{name}{end}") for end in ("_x", "_y", "_z")]))
    figure = drawn(lambda: loss_plot(groups))
    assert outside(figure) == [] and figure.axes[0].get_window_extent().width > 0.7 * figure.bbox.width
    assert figure.axes[0].get_window_extent().height > 0.5 * 3.5 * figure.dpi


def test_names_are_broken_between_their_words() -> None:
    assert in_lines("gated_channel, 3 seeds", 22) == "gated_channel, 3 seeds"
    assert in_lines("gated_channel, 3 seeds", 12) == "gated_\nchannel, 3\nseeds"
    assert in_lines("abcdefgh", 3) == "abc\ndef\ngh" and in_lines("", 3) == ""


def test_the_steep_beginning_is_cut_off_and_nothing_else() -> None:
    """The first tenth of the longest run: one that ended there does not set the scale, unless it is alone."""
    long = np.arange(1.0, 101.0), np.where(np.arange(100) < 10, 9.0, 2.0)
    short, unknown = (np.array([1.0, 8.0]), np.array([9.0, 8.0])), (np.array([1.0, 90.0]), np.array([7.0, np.nan]))
    assert limits([long, short, unknown]) == (1.95, 2.05)
    assert limits([short]) == pytest.approx((7.9, 9.1))
    assert limits([]) == (None, None) and "<svg" in loss_plot([], log_x=True)


def test_words_in_a_picture_keep_their_digits() -> None:
    picture = svg(lambda axes: axes.plot([1.23456, 2], [0, 1], label="0.98765"), "A line", words='"5.4321"')
    assert ">0.98765</text>" in picture and 'aria-label="A line. &quot;5.4321&quot;"' in picture
    assert not re.search(r' d="[^"]*\.\d{3}', picture)
