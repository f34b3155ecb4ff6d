"""The report: that the page says what the runs tell, alone and safely."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from contextlm.analysis import report_tables
from contextlm.analysis.report import build_report
from contextlm.analysis.run_record import read_run, read_runs
from contextlm.analysis.seed_groups import seed_groups
from tests.unit.analysis.report_runs import finish_run, write_history, write_lines, write_run
from tools import report

VOID_ELEMENTS = {"meta", "br", "img", "input"}
SECTIONS = [
    "results", "loss", "events", "context", "evaluation", "samples", "throughput", "gradients", "changes",
    "differences", "configuration", "data", "commands",
]  # fmt: skip


class Tags(HTMLParser):
    """Collects what a browser would load, ids, the words of pictures, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "svg":
            self.pictures.append(dict(attrs).get("aria-label") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pair")
    folders = [write_run(folder / "contextlm"), write_run(folder / "gpt2", chunk_size=0, floor=4.2)]
    for folder in folders:
        finish_run(folder)
    write_history(folders[0])
    return folders


@pytest.fixture(scope="module")
def page(pair: list[Path]) -> str:
    return build_report(read_runs(pair), "A pair", "make quickstart && echo '<done>'")


def test_page_has_numbers_events_samples_differences_and_commands(page: str) -> None:
    assert "<td>validation loss</td><td>4.0568</td>" in page and "57.78" in page and "1.9876" in page
    assert "<td>lm_loss</td><td>4.0568 ± 0.0123</td>" in page
    assert "<td>context_chunk_size</td><td>4</td><td>0</td>" in page
    assert "<td>save</td><td>" not in page.split("id='differences'")[1].split("</section>")[0]  # says nothing
    assert "<td>tensor_model_parallel_size</td><td>2</td><td>1</td>" in page
    assert "<td>data fingerprint</td><td>0123456789abcdef</td>" in page
    assert "! failed: rank 3: out of memory (try less)" in page and "! skipped: the loss is NaN on rank 2" in page
    assert "<td>skipped iterations</td><td>1</td><td>0</td>" in page
    assert "reconstruction" in page and "proves nothing" in page
    assert "OMP_NUM_THREADS=1 python pretrain_contextlm.py --tensor-model-parallel-size 2" in page
    assert "echo &#x27;&lt;done&gt;&#x27;" in page


def test_page_is_well_formed_and_loads_nothing(page: str) -> None:
    tags = Tags(page)
    assert tags.open == [] and len(tags.ids) == len(set(tags.ids))
    assert [name for name in tags.ids if name in SECTIONS] == SECTIONS
    assert all(target.startswith("#") for target in tags.loads)  # only the pictures' own markers
    assert not re.search(r"@import|url\((?!#)|https?:|<script", page)
    assert "default-src 'none'" in page and "width=device-width" in page


def test_every_picture_is_told_in_words(page: str) -> None:
    words = Tags(page).pictures
    assert [text.split(".")[0] for text in words] == [
        "Loss by iteration", "Loss by iteration, logarithmic", "What the context is worth",
        "Loss by position in a chunk", "Gate by iteration", "Throughput by iteration", "Gradient norm by iteration",
    ]  # fmt: skip
    assert words[-1].endswith("gpt2: 6 at iteration 1, 1.083 at iteration 60") and "contextlm: 6 at" in words[-1]
    assert (
        words[3]
        == "Loss by position in a chunk. contextlm: 4.3 at position in the chunk 0, 4 at position in the chunk 3"
    )


def test_parameters_are_those_of_the_saved_configuration(pair: list[Path], page: str) -> None:
    runs = read_runs(pair)
    # Tables of 515 tokens and 256 positions, 4 layers, final norm; width 128.
    assert runs[1].parameters == (515 + 256) * 128 + 4 * (12 * 128 * 128 + 13 * 128) + 2 * 128
    assert runs[0].parameters > runs[1].parameters
    assert all(f"{run.parameters:,d}" in page for run in runs)


def test_equal_runs_give_equal_pages(pair: list[Path], page: str) -> None:
    assert build_report(read_runs(pair), "A pair", "make quickstart && echo '<done>'") == page


def test_generated_text_cannot_become_markup_and_passwords_stay_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", iterations=4)
    finish_run(folder)
    (folder / "exit.json").write_text('{"status": 1, "rank": 0, "cause": "http://me:secret@host/ is <gone>"}')
    page = build_report([read_run(folder)], "<script>alert(1)</script>")
    assert "a &lt;b&gt;list&lt;/b&gt;" in page and "<script" not in page
    assert "host/ is &lt;gone&gt;" in page and "secret" not in page


def test_every_validation_set_has_its_own_rows(tmp_path: Path) -> None:
    folder, plain = write_run(tmp_path / "several"), write_run(tmp_path / "one", chunk_size=0)
    splits = {"validation/a": 1.25, "validation/b": 7.75, "test": 3.5}
    lines = [line for line in read_run(folder).training if line["iteration"] in (30, 60)]
    for iteration in (30, 60):
        lines += [
            {"iteration": iteration, "split": split, "lm_loss": loss + iteration, "lm_loss_context_zeroed": loss - 1}
            for split, loss in splits.items()
        ]
    write_lines(folder / "metrics.jsonl", lines)
    run = read_run(folder)
    assert {split: [line["lm_loss"] for line in own] for split, own in run.by_split.items()} == {
        split: [loss + 30, loss + 60] for split, loss in splits.items()
    }
    page = report_tables.results([run, read_run(plain)])
    assert "<td>validation/a loss</td><td>61.2500</td><td>–</td>" in page
    assert "<td>last validation/b loss, context zeroed</td><td>6.7500</td><td>–</td>" in page
    assert "<td>test loss</td><td>63.5000</td><td>–</td>" in page and "<td>validation loss</td><td>–</td>" in page


def test_several_seeds_have_a_mean_and_an_interval(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run-seed{seed}", seed=seed, iterations=20) for seed in (1, 2, 3)]
    for loss, folder in zip((4.0, 4.1, 4.2), folders, strict=True):
        (folder / "evaluation.json").write_text(json.dumps({"lm_loss": loss}))
    page = report_tables.seeds(seed_groups(read_runs(folders)))
    # t of 2 degrees of freedom is 4.303; 0.1 / sqrt(3) is the standard error.
    assert "<td>run, 3 seeds</td><td>3</td><td>4.1000</td><td>3.8516 .. 4.3484</td>" in page


def test_incomplete_runs_are_reported_with_what_is_missing(tmp_path: Path) -> None:
    """Nothing but a beginning; half a line of a killed run; only NaN; one iteration; no configuration."""
    empty, killed, diverged, first, bare = (tmp_path / name for name in ("empty", "killed", "nan", "first", "bare"))
    empty.mkdir()
    (empty / "events.jsonl").touch()
    write_run(killed)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 61, "lm_lo')
    write_run(diverged)
    write_lines(diverged / "metrics.jsonl", [{"iteration": i, "lm_loss": None, "grad_norm": None} for i in range(1, 5)])
    write_run(first)
    write_lines(first / "metrics.jsonl", [{"iteration": 1, "lm_loss": 5.5, "grad_norm": 1.0, "tokens_per_second": 9.0}])
    bare.mkdir()
    write_lines(bare / "metrics.jsonl", [{"iteration": 1, "lm_loss": 5.5}, {"iteration": "?", "lm_loss": 1.0}])
    runs = read_runs([empty, killed, diverged, first, bare])
    assert len(runs[1].training) == 60
    assert runs[1].final["validation"]["bits_per_byte"] == 2.0  # the last validation line stands in for evaluation.json
    page = build_report(runs, "Incomplete")
    assert Tags(page).open == []
    for sentence in (
        "empty: no metrics.jsonl", "killed: metrics.jsonl: 1 line(s)", "empty, bare: no checkpoint",
        "empty, killed, nan, first, bare: no samples.json", "bare: bare/config.yaml cannot be read",
    ):  # fmt: skip
        assert f"<li>{sentence}" in page
    assert "nan: no numbers" in page and "first: 5.5 at iteration 1" in page
    for run in (runs[0], runs[4]):  # and by itself
        assert Tags(build_report([run], "Alone")).open == []


def test_tool_writes_the_page_or_names_everything_that_is_wrong(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "report.html"
    assert report.main([*map(str, pair), "--output", str(output)]) == 0
    assert "</html>" in output.read_text()
    wrong = [
        str(tmp_path / "nowhere"),
        "--output",
        str(tmp_path),
        "--commands",
        str(tmp_path / "no"),
        "--samples",
        "-1",
    ]
    with pytest.raises(SystemExit) as stopped:
        report.main(wrong)
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].split()[0] for line in lines] == [
        str(tmp_path / "nowhere"), "--commands", "--samples", "--output",
    ]  # fmt: skip
