"""The report in a real browser: it asks for nothing, complains of nothing, and fits a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contextlm.analysis.report import build_report
from contextlm.analysis.run_record import read_runs
from tests.cli.browser import PROGRAM, Browser, browser
from tests.unit.analysis.report_runs import finish_run, write_history, write_run
from tests.unit.analysis.test_report import SECTIONS

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium, chromium-browser or google-chrome; apt install chromium"),
]
SCREENS = {"desktop": (1280, 800), "phone": (390, 844)}
TOO_WIDE = (
    "[...document.querySelectorAll('section, figure, svg, h1')]"
    ".filter(e => e.getBoundingClientRect().right > innerWidth).length"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    runs = [write_run(folder / f"contextlm-seed{seed}", seed=seed) for seed in (1, 2, 3)]
    runs += [write_run(folder / "a-plain-model-with-a-long-name-for-a-table", chunk_size=0, floor=4.2)]
    for run in runs:
        finish_run(run)
    write_history(runs[0])
    (folder / "report.html").write_text(build_report(read_runs(runs), "Four runs", "make quickstart " * 40))
    return folder / "report.html"


@pytest.mark.parametrize("screen", SCREENS)
def test_page_is_whole_quiet_and_fits(chromium: Browser, page: Path, screen: str) -> None:
    chromium.show(page, *SCREENS[screen], is_phone=screen == "phone")
    assert chromium.requested() == [page.resolve().as_uri()] and chromium.complaints() == []
    width, room = chromium.value("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= room == SCREENS[screen][0] and chromium.value(TOO_WIDE) == 0
    heights = chromium.value(
        "Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, s.offsetHeight]))"
    )
    assert list(heights) == SECTIONS and min(heights.values()) > 40
    letters = chromium.value(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height).filter(h => h)"
    )
    assert len(letters) > 50 and min(letters) > 8  # upright or turned, no line of a picture is too small to read
    chromium.screenshot(page.with_name(f"{screen}.png"))
    assert page.with_name(f"{screen}.png").stat().st_size > 50_000


def test_scale_can_be_chosen_without_a_script(chromium: Browser, page: Path) -> None:
    chromium.show(page, *SCREENS["phone"], is_phone=True)
    shown = "['linear', 'logarithmic'].map(name => document.querySelector('.if-' + name).offsetHeight > 0)"
    assert chromium.value(shown) == [True, False]
    chromium.click("#logarithmic")
    assert chromium.value(shown) == [False, True]


def test_the_checks_notice_a_page_that_loads_runs_or_overflows(chromium: Browser, page: Path, tmp_path: Path) -> None:
    """The controls: a picture from elsewhere and a script, which the policy stops and the console tells of."""
    text, end = page.read_text(), "</main>"
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        text.replace(
            end,
            "<script>document.title = 'run'</script><img src='picture.png'><section style='width: 500px'>x</section>"
            + end,
        )
    )
    chromium.show(wrong, *SCREENS["phone"], is_phone=True)
    assert len(chromium.complaints()) == 2 and all("Content Security Policy" in text for text in chromium.complaints())
    assert chromium.value("document.title") == "Four runs"
    assert chromium.value(TOO_WIDE) == 1
    policy = text[text.index("<meta http-equiv") : text.index("<meta name='viewport'")]
    shutil.copy(page, tmp_path / "picture.png")
    wrong.write_text(wrong.read_text().replace(policy, ""))
    chromium.show(wrong, *SCREENS["phone"], is_phone=True)
    assert (tmp_path / "picture.png").as_uri() in chromium.requested() and chromium.value("document.title") == "run"
