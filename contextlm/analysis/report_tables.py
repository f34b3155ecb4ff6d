"""The tables of the report: results, seeds, history, scores, options, data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contextlm.analysis.page_parts import NOTHING, duration, folded, number, table, words
from contextlm.analysis.run_history import history, skipped, state
from contextlm.analysis.run_record import PLACES, RunRecord, differences
from contextlm.analysis.score_rows import number as score
from contextlm.analysis.score_rows import score_rows
from contextlm.analysis.seed_groups import SeedGroup
from contextlm.analysis.t_interval import interval

_NO_RESULT = PLACES | {"data_path", "train_data_path", "valid_data_path", "test_data_path"}
Rows = list[tuple[str, ...]]


def results(runs: Sequence[RunRecord]) -> str:
    """A column per run: two of them fit on a phone."""
    splits = dict.fromkeys(split for run in runs for split in run.final)
    rows: Rows = [
        ("state", *(state(run) for run in runs)),
        ("model", *(words(run.config.get("preset")) for run in runs)),
        ("parameters", *(number(run.parameters, ",.0f") for run in runs)),
        ("iterations", *(number(run.iterations, ",.0f") for run in runs)),
        *(row for split in splits for row in _split(split, runs)),
        ("training tokens/s", *(number(run.tokens_per_second, ",.0f") for run in runs)),
        ("MFU", *(number(run.mfu, ".1%") for run in runs)),
        ("training time", *(duration(run.seconds) for run in runs)),
        ("waiting for data", *(number(run.data_wait_share, ".1%") for run in runs)),
        ("slowest process, its own work", *(_excess(run.slowest_to_median) for run in runs)),
        ("skipped iterations", *(number(len(skipped(run)), ",d") for run in runs)),
        ("peak memory of a process, GiB", *(number(_gib(run.peak_memory_bytes), ".2f") for run in runs)),
    ]
    return table(("", *(run.name for run in runs)), [row for row in rows if set(row[1:]) - {NOTHING}])


def seeds(groups: Sequence[SeedGroup]) -> str:
    """Last validation losses of the groups that have several seeds, and the interval of their mean."""
    rows: Rows = []
    for group in groups:
        losses = [run.final.get("validation", {}).get("lm_loss") for run in group.runs]
        known = [loss for loss in losses if isinstance(loss, int | float)]
        if len(known) > 1:
            found = interval(known)
            of = f"{len(known)} of {len(losses)}" if len(known) < len(losses) else str(len(known))
            rows.append((group.name, of, f"{found.mean:.4f}", f"{found.low:.4f} .. {found.high:.4f}"))
    return table(("options", "seeds", "mean validation loss", "95% interval"), rows)


def events(runs: Sequence[RunRecord]) -> str:
    """What befell each run; unfolded where somebody should look at something, which a sign marks."""
    parts = []
    for run in runs:
        lines = history(run)
        rows = [
            (line.time or NOTHING, number(line.iteration, ",d"), ("! " if line.is_bad else "") + line.sentence)
            for line in lines
        ]
        body = table(("time (UTC)", "iteration", "what"), rows)
        is_open = len(runs) == 1 or any(line.is_bad for line in lines)
        parts.append(folded(f"{run.name}: {len(rows)} event{'s' * (len(rows) > 1)}", body, is_open=is_open))
    return "".join(parts)


def changes(runs: Sequence[RunRecord]) -> str:
    """Where runs were continued with other options."""
    rows = [
        (run.name, f"{change.iteration:,d}", name, words(before), words(after))
        for run in runs
        for change in run.changes
        for name, (before, after) in change.options.items()
    ]
    return table(("run", "after iteration", "option", "before", "after"), rows)


def scores(runs: Sequence[RunRecord]) -> str:
    """What `tools/evaluate.py` has written into the folders: a table for each file name, a column for each run."""
    parts = []
    for file in dict.fromkeys(file for run in runs for file in run.scores):
        of = [run for run in runs if file in run.scores]
        cells = {run.name: {name: _score(*found) for name, *found in score_rows(run.scores[file])} for run in of}
        names = dict.fromkeys(name for own in cells.values() for name in own)
        rows = [(name, *(cells[run.name].get(name, NOTHING) for run in of)) for name in names]
        body = table(("measure, ± standard error", *(run.name for run in of)), rows)
        parts.append(folded(file, body, is_open=len(rows) < 20))
    return "".join(parts)


def config_differences(runs: Sequence[RunRecord]) -> str:
    """The options in which any run differs from the first one."""
    known = [run for run in runs if run.config]
    names = sorted(
        {name for run in known[1:] for name in differences(known[0].config, run.config) if name not in _NO_RESULT}
    )
    rows = [(name, *(words(run.config.get(name)) for run in known)) for name in names]
    return table(("option", *(run.name for run in known)), rows)


def configuration(runs: Sequence[RunRecord]) -> str:
    """All options of the first run; those of the others follow from the differences."""
    first = next((run for run in runs if run.config), None)
    if first is None:
        return ""
    rows = [(name, words(value)) for name, value in sorted(first.config.items())]
    return folded(f"All options of {first.name}", table(("option", "value"), rows))


def data(runs: Sequence[RunRecord]) -> str:
    """What was read: equal fingerprints are the same tokens in the same order."""
    rows: Rows = [
        ("data fingerprint", *(_short(run.details.get("data_fingerprint")) for run in runs)),
        ("tokenizer fingerprint", *(_short(run.details.get("tokenizer_fingerprint")) for run in runs)),
        *((name, *(words(run.config.get(name)) for run in runs)) for name in ("data_path", "split", "seed")),
    ]
    return table(("", *(run.name for run in runs)), [row for row in rows if set(row[1:]) - {NOTHING}])


def versions(runs: Sequence[RunRecord]) -> str:
    """Everything else that `run.json` tells."""
    rows = [
        (run.name, name, words(value))
        for run in runs
        for name, value in sorted(_flat(run.details).items())
        if not name.startswith("started_with")
    ]
    return folded("Versions, layout and progress", table(("run", "what", "value"), rows))


def _split(split: str, runs: Sequence[RunRecord]) -> Rows:
    """What was found on one split, the rows of a run without it empty."""
    found = [run.final.get(split, {}) for run in runs]
    return [
        (f"{split} loss", *(number(result.get("lm_loss"), ".4f") for result in found)),
        (f"{split} perplexity", *(number(result.get("perplexity"), ".2f") for result in found)),
        (f"{split} bits per byte", *(number(result.get("bits_per_byte"), ".4f") for result in found)),
        (f"last {split} loss, context zeroed", *(number(run.loss_without_context(split), ".4f") for run in runs)),
    ]


def _score(value: Any, error: Any) -> str:
    if not isinstance(value, int | float):
        return NOTHING
    return score(value) + (f" ± {score(error)}" if isinstance(error, int | float) else "")


def _short(fingerprint: Any) -> str:
    """Enough to tell two of them apart; the whole of it is in the folded table."""
    return words(fingerprint)[:16]


def _excess(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio - 1:+.1%} of the median"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _gib(value: float | None) -> float | None:
    return None if value is None else value / 2**30
