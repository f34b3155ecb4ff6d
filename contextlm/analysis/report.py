"""One self-contained page about some runs: curves, table, samples, differences, continuations, commands.

The page loads nothing from anywhere, so it can be sent and archived. Read next: `run_record.py` (what is
read), `plots.py` (the pictures), `report_style.py` (how it looks).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from contextlm.analysis.plots import gradient_norm_plot, loss_plot
from contextlm.analysis.report_style import STYLE
from contextlm.analysis.run_record import RunRecord, differences

HONESTY = (
    "ContextLM here is a reconstruction of a published method, not its authors' code. One seed of a tiny "
    "model proves nothing about which model is better: read such a page as evidence that the system trains, "
    "resumes and measures."
)
LOSS_CAPTION = (
    "Training loss per iteration (pale) and smoothed (bold); points: validation loss; dashed: continued "
    "from a checkpoint with other options."
)
# Different in any two runs, and no choice of the model or of training.
_PLACES = {
    "save", "load", "output_dir", "data_path", "tokenizer_model", "vocab_file", "merge_file", "exit_interval",
    "save_interval",
}  # fmt: skip


def build_report(runs: Sequence[RunRecord], title: str, commands: str = "") -> str:
    """The page as HTML text.

    Args:
        runs: in the order of table and legend; the configuration of the others is compared to the first's.
        title: heading of the page.
        commands: shell commands that made the runs, shown as they are.
    """
    sections = [
        f"<p class='honesty'>{escape(HONESTY)}</p>",
        _section("Results", _results(runs)),
        _section("Loss", _figure(loss_plot(runs), LOSS_CAPTION)),
        _section("Samples", _samples(runs)),
        _section("Continued with other options", _changes(runs)),
        _section("Differences in configuration", _config_table(runs)),
        _section("Gradient norm", _figure(gradient_norm_plot(runs), "Global norm before clipping.")),
        _section("Commands", f"<pre>{escape(commands.strip())}</pre>" if commands.strip() else ""),
        _section("Versions and data", _details(runs)),
        _section("Not found", _list(f"{run.name}: {note}" for run in runs for note in run.notes)),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n" + "\n".join(filter(None, sections)) + "\n</main></body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>" if body else ""


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _results(runs: Sequence[RunRecord]) -> str:
    """A column per run: two of them fit on a phone."""
    rows = [
        ("model", *(_value(run.config.get("preset")) for run in runs)),
        ("parameters", *(_number(run.parameters, ",.0f") for run in runs)),
        ("iterations", *(_number(run.iterations, ",.0f") for run in runs)),
        *(row for split in dict.fromkeys(split for run in runs for split in run.final) for row in _split(split, runs)),
        ("training tokens/s", *(_number(run.tokens_per_second, ",.0f") for run in runs)),
        ("training time", *(_duration(run.seconds) for run in runs)),
        ("waiting for data", *(_number(run.data_wait_share, ".1%") for run in runs)),
        ("peak memory of a process, GiB", *(_number(_gib(run.peak_memory_bytes), ".2f") for run in runs)),
    ]
    return _table(("", *(run.name for run in runs)), rows)


def _split(split: str, runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """What was found on one split, the rows of a run without it empty."""
    found = [run.final.get(split, {}) for run in runs]
    return [
        (f"{split} loss", *(_number(result.get("lm_loss"), ".4f") for result in found)),
        (f"{split} perplexity", *(_number(result.get("perplexity"), ".2f") for result in found)),
        (f"{split} bits per byte", *(_number(result.get("bits_per_byte"), ".4f") for result in found)),
        (f"last {split} loss, context zeroed", *(_number(run.loss_without_context(split), ".4f") for run in runs)),
    ]


def _samples(runs: Sequence[RunRecord]) -> str:
    parts = []
    for run in runs:
        for prompt, text in run.samples:
            continuation = text.removeprefix(prompt)
            parts.append(
                f"<figure><figcaption>{escape(run.name)}</figcaption>"
                f"<pre class='sample'><b>{escape(prompt)}</b>{escape(continuation)}</pre></figure>"
            )
    return "".join(parts)


def _changes(runs: Sequence[RunRecord]) -> str:
    rows = [
        (run.name, f"{change.iteration:,d}", name, _value(before), _value(after))
        for run in runs
        for change in run.changes
        for name, (before, after) in change.options.items()
    ]
    return _table(("run", "after iteration", "option", "before", "after"), rows)


def _config_table(runs: Sequence[RunRecord]) -> str:
    """The options in which any run differs from the first one."""
    known = [run for run in runs if run.config]
    names = sorted(
        {name for run in known[1:] for name in differences(known[0].config, run.config) if name not in _PLACES}
    )
    rows = [(name, *(_value(run.config.get(name)) for run in known)) for name in names]
    return _table(("option", *(run.name for run in known)), rows)


def _details(runs: Sequence[RunRecord]) -> str:
    rows = [(run.name, name, _value(value)) for run in runs for name, value in sorted(_flat(run.details).items())]
    return _table(("run", "what", "value"), rows)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Nothing where there are no rows: an empty table says less than no table."""
    if not rows:
        return ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "–"


def _gib(number: float | None) -> float | None:
    return None if number is None else number / 2**30


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "–" if value is None else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
