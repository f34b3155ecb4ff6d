"""The report: what it reads from run folders, and that the page says it, alone and safely."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from contextlm.analysis.plots import loss_plot, smoothed
from contextlm.analysis.report import build_report
from contextlm.analysis.run_record import read_run
from contextlm.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[3]
VOID_ELEMENTS = {"meta", "br", "img"}


def write_run(folder: Path, *, chunk_size: int = 4, iterations: int = 60, floor: float = 4.0) -> Path:
    """A run folder as training leaves it: stopped half way and continued in another layout."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(chunk_size)
    lines = []
    for iteration in range(1, iterations + 1):
        loss = floor + 3 * float(np.exp(-iteration / 15)) + 0.05 * float(rng.normal())
        lines.append(
            {
                "iteration": iteration,
                "lm_loss": loss,
                "grad_norm": 1.0 + 5 / iteration,
                "learning_rate": 1e-3,
                "consumed_samples": 16 * iteration,
                "consumed_tokens": 4096 * iteration,
                "mfu": None,
                "tokens_per_second": 8192.0,
                "elapsed_ms": 500.0,
                "data_wait_ms": 20.0,
                "peak_memory_bytes": 3 * 2**30 if iteration % 10 == 0 else None,
            }
        )
        if iteration % 20 == 0:
            lines.append(
                {
                    "iteration": iteration,
                    "split": "validation",
                    "lm_loss": loss + 0.1,
                    "perplexity": 60.0,
                    "bits_per_byte": 2.0,
                    "lm_loss_context_zeroed": 4.56789 if chunk_size else None,
                }
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "latest_checkpointed_iteration.txt").write_text(str(iterations))
    for iteration, tensor in ((iterations // 2, 2), (iterations, 1)):
        checkpoint = folder / f"iter_{iteration:07d}"
        checkpoint.mkdir()
        config = {
            "preset": "contextlm-gpt2-tiny" if chunk_size else "gpt2-tiny",
            "model": {"num_layers": 4},
            "context": {"context_chunk_size": chunk_size},
            "parallel": {"tensor_model_parallel_size": tensor},
            "checkpoint": {"save": str(folder)},
        }
        (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
        layout = f"TP {tensor} x PP 2 x DP {2 // tensor}"
        details = {"vocab_size": 515, "layout": layout, "versions": {"torch": "2.13.0"}}
        (checkpoint / "run.json").write_text(json.dumps(details))
    return folder


def finish_run(folder: Path) -> None:
    (folder / "evaluation.json").write_text(
        json.dumps({"lm_loss": 4.05678, "perplexity": 57.78, "bits_per_byte": 1.9876, "tokens": 1000})
    )
    (folder / "samples.json").write_text(json.dumps({"prompt": "Return", "text": "Return a <b>list</b>"}))


class Tags(HTMLParser):
    """Collects what a browser would load, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self.open.pop() == tag


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    folders = [write_run(tmp_path / "contextlm"), write_run(tmp_path / "gpt2", chunk_size=0, floor=4.2)]
    for folder in folders:
        finish_run(folder)
    return folders


def test_record_finds_the_continuation_and_its_options(pair: list[Path]) -> None:
    run = read_run(pair[0])
    assert [(change.iteration, change.options) for change in run.changes] == [
        (30, {"layout": ("TP 2 x PP 2 x DP 1", "TP 1 x PP 2 x DP 2"), "tensor_model_parallel_size": (2, 1)})
    ]
    assert run.seconds == pytest.approx(30.0)
    assert run.tokens_per_second == 8192.0
    assert run.data_wait_share == pytest.approx(0.04) and run.peak_memory_bytes == 3 * 2**30
    assert run.loss_without_context("validation") == 4.56789
    assert read_run(pair[1]).loss_without_context("validation") is None
    assert len(run.training) == 60 and len(run.evaluations) == 3
    assert run.final["validation"]["lm_loss"] == 4.05678
    assert run.notes == []


def test_parameters_are_those_of_the_saved_configuration(pair: list[Path]) -> None:
    runs = [read_run(folder) for folder in pair]
    # Tables of 515 tokens and 256 positions, 4 layers, final norm; width 128.
    assert runs[1].parameters == (515 + 256) * 128 + 4 * (12 * 128 * 128 + 13 * 128) + 2 * 128
    assert runs[0].parameters > runs[1].parameters
    page = build_report(runs, "A pair")
    assert all(f"{run.parameters:,d}" in page for run in runs)


def test_a_checkpoint_that_the_tracker_does_not_name_yet_is_not_read(pair: list[Path]) -> None:
    (pair[0] / "latest_checkpointed_iteration.txt").write_text("30")
    run = read_run(pair[0])
    assert run.changes == []
    assert run.config["tensor_model_parallel_size"] == 2


def test_page_has_numbers_curves_samples_differences_and_commands(pair: list[Path]) -> None:
    page = build_report([read_run(folder) for folder in pair], "A pair", "make quickstart && echo '<done>'")
    assert page.count("<svg") == 2
    assert "4.0568" in page and "57.78" in page and "1.9876" in page
    assert "<td>context_chunk_size</td><td>4</td><td>0</td>" in page
    assert "<td>save</td>" not in page  # folders differ always and say nothing
    assert "<td>tensor_model_parallel_size</td><td>2</td><td>1</td>" in page
    assert "reconstruction" in page and "proves nothing" in page
    assert "echo &#x27;&lt;done&gt;&#x27;" in page


def test_every_validation_set_has_its_own_points_and_rows(tmp_path: Path) -> None:
    folder, plain = write_run(tmp_path / "several"), write_run(tmp_path / "one", chunk_size=0)
    splits = {"validation/a": 1.25, "validation/b": 7.75, "test": 3.5}
    lines = [
        line for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "split" not in line
    ]
    for iteration in (30, 60):
        lines += [
            {"iteration": iteration, "split": split, "lm_loss": loss + iteration, "lm_loss_context_zeroed": loss - 1}
            for split, loss in splits.items()
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    assert {split: [line["lm_loss"] for line in own] for split, own in run.by_split.items()} == {
        split: [loss + 30, loss + 60] for split, loss in splits.items()
    }
    page = build_report([run, read_run(plain)], "Several sets")
    assert "<td>validation/a loss</td><td>61.2500</td><td>–</td>" in page
    assert "<td>last validation/b loss, context zeroed</td><td>6.7500</td><td>–</td>" in page
    assert "<td>test loss</td><td>63.5000</td><td>–</td>" in page and "<td>validation loss</td><td>–</td>" in page
    drawn = []
    legend_of = lambda axes, *args, **kwargs: drawn.extend(axes.get_legend_handles_labels()[1])  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.axes.Axes.legend", legend_of)
        loss_plot([run])
    assert drawn[:3] == ["several", "several, validation/a", "several, validation/b"]


def test_generated_text_cannot_become_markup(pair: list[Path]) -> None:
    page = build_report([read_run(folder) for folder in pair], "<script>alert(1)</script>")
    assert "a &lt;b&gt;list&lt;/b&gt;" in page
    assert "<script" not in page


def test_page_is_well_formed_and_loads_nothing(pair: list[Path]) -> None:
    page = build_report([read_run(folder) for folder in pair], "A pair")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(target.startswith("#") for target in tags.loads)  # only the pictures' own glyphs
    assert not re.search(r"@import|url\((?!#)", page)
    assert "width=device-width" in page


def test_equal_runs_give_equal_pages(pair: list[Path]) -> None:
    first, second = (build_report([read_run(folder) for folder in pair], "A pair") for _ in range(2))
    assert first == second


def test_unfinished_run_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "contextlm")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 61, "lm_lo')  # a run that is being killed
    run = read_run(folder)
    assert len(run.training) == 60
    assert run.final["validation"]["bits_per_byte"] == 2.0  # the last validation line stands in for evaluation.json
    page = build_report([run], "Unfinished")
    assert "metrics.jsonl: 1 line(s)" in page and "no evaluation.json" in page and "no samples.json" in page


def test_empty_folder_and_nan_losses_still_give_a_page(tmp_path: Path) -> None:
    empty, diverged = tmp_path / "empty", write_run(tmp_path / "diverged")
    empty.mkdir()
    lines = [{"iteration": i, "lm_loss": float("nan"), "grad_norm": None} for i in range(1, 5)]
    (diverged / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = build_report([read_run(empty), read_run(diverged)], "Nothing")
    assert "no metrics.jsonl" in page and page.count("<svg") == 2


def test_smoothing_uses_no_later_point_and_skips_unknown_ones() -> None:
    values = np.arange(90, dtype=float)
    values[50] = np.nan
    result = smoothed(values)
    changed = values.copy()
    changed[60:] = 1e6
    assert np.array_equal(smoothed(changed)[:60], result[:60], equal_nan=True)
    assert result[10] == pytest.approx(9.0)  # the window is 3: the mean of 8, 9, 10
    assert np.isnan(result[50]) and result[51] == pytest.approx((49 + 51) / 2)


def test_tool_writes_the_page_and_refuses_a_missing_folder(pair: list[Path], tmp_path: Path) -> None:
    def report(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "tools/report.py", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60)

    output = tmp_path / "new" / "report.html"
    done = report(*pair, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "</html>" in output.read_text()
    failed = report(tmp_path / "nowhere", "--output", tmp_path / "other.html")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert f"error: {tmp_path / 'nowhere'}: no such run folder" in failed.stderr
    assert not (tmp_path / "other.html").exists()


def test_reading_a_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
