"""What a run folder tells: its metrics, its results, its configuration, what befell it.

Copes with missing pieces: a report of an unfinished run is still a report. Read next: `run_files.py` (how it is
read), `run_history.py` (what befell it), `report.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contextlm.analysis.parameters import count_parameters
from contextlm.analysis.run_files import (
    EVENTS,
    METRICS,
    checkpoints,
    is_run,
    read_config,
    read_json,
    read_lines,
    read_object,
)
from contextlm.analysis.score_rows import score_rows
from contextlm.config import load
from contextlm.errors import UserError

# Different in any two runs, and no choice of the model or of training.
PLACES = frozenset({
    "save", "load", "output_dir", "data_cache_path", "tokenizer_model", "vocab_file", "merge_file", "exit_interval",
    "save_interval", "tensorboard_dir", "wandb_exp_name", "wandb_save_dir",
})  # fmt: skip
# Files of ours that are no results of `tools/evaluate.py`.
_NO_SCORES = {"run.json", "exit.json", "samples.json", "trackers.json"}


@dataclass(frozen=True)
class Change:
    """A run continued from a checkpoint with other options: {option: (before, after)}."""

    iteration: int
    options: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    Attributes:
        training: one dict per iteration, as in metrics.jsonl.
        evaluations: evaluation lines of metrics.jsonl, each with `split`.
        result: evaluation.json, the evaluation of the finished model; empty if there is none.
        scores: by file name, everything that `tools/evaluate.py` has written into the folder.
        samples: (prompt, continuation).
        config: options of the last checkpoint by name, without their sections.
        parameters: of the whole model, padding of the vocabulary left out; None if unknown.
        details: run.json of the last checkpoint, else what the run said of itself when it began.
        changes: where the run was continued with other options.
        events: events.jsonl.
        ending: exit.json; empty while it runs, or if it was killed.
        bad_steps: by iteration, why it was skipped.
        notes: what is missing or could not be read, a sentence each.
    """

    name: str
    folder: Path
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    result: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    samples: list[tuple[str, str]]
    config: dict[str, Any]
    parameters: int | None
    details: dict[str, Any]
    changes: list[Change]
    events: list[dict[str, Any]]
    ending: dict[str, Any]
    bad_steps: dict[int, str]
    notes: list[str]

    @property
    def iterations(self) -> int | None:
        """The last iteration in the metrics; None if there is none."""
        return self.training[-1]["iteration"] if self.training else None

    @property
    def seconds(self) -> float | None:
        """Time spent in iterations; None if unknown."""
        times = _column(self.training, "elapsed_ms")
        return sum(times) / 1000 if times else None

    @property
    def tokens_per_second(self) -> float | None:
        """Median over the iterations: the first one, with its warm-up, does not count more than any other."""
        rates = _column(self.training, "tokens_per_second")
        return statistics.median(rates) if rates else None

    @property
    def mfu(self) -> float | None:
        """Median share of the peak; None if unknown."""
        shares = _column(self.training, "mfu")
        return statistics.median(shares) if shares else None

    @property
    def slowest_to_median(self) -> float | None:
        """How much longer the slowest process works by itself than the median one, as a factor; None if unknown."""
        slowest, usual = _column(self.training, "own_ms_slowest"), _column(self.training, "own_ms_median")
        return statistics.median(slowest) / statistics.median(usual) if slowest and usual else None

    @property
    def peak_memory_bytes(self) -> float | None:
        """The most memory that a process took; None if unknown."""
        return max(_column(self.training, "peak_memory_bytes"), default=None)

    @property
    def data_wait_share(self) -> float | None:
        """Share of the time of iterations in which the loop waited for data; None if unknown."""
        waits, times = _column(self.training, "data_wait_ms"), _column(self.training, "elapsed_ms")
        return sum(waits) / sum(times) if waits and sum(times) > 0 else None

    @property
    def by_split(self) -> dict[str, list[dict[str, Any]]]:
        """The evaluation lines of each split (`validation`, `validation/NAME`, `test`), which are never mixed."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self.evaluations:
            found.setdefault(str(line["split"]), []).append(line)
        return found

    @property
    def final(self) -> dict[str, dict[str, Any]]:
        """The last word on each split: its last line; for `validation` evaluation.json, if it tells a loss."""
        last = {split: lines[-1] for split, lines in self.by_split.items()}
        return last | ({"validation": self.result} if "lm_loss" in self.result else {})

    def loss_without_context(self, split: str) -> float | None:
        """The last loss of a split with the context zeroed; None for a plain model."""
        lines = self.by_split.get(split, [])
        return next((x["lm_loss_context_zeroed"] for x in lines[::-1] if "lm_loss_context_zeroed" in x), None)


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """The records of some folders, each with a name of its own.

    Raises:
        UserError: all folders that are not there, are no run's, or are given twice.
    """
    wrong = [_no_folder(folder) for folder in folders if not folder.is_dir()]
    wrong += [
        f"{folder}: is no run's folder, which has {METRICS}, {EVENTS} or checkpoints (iter_...); "
        "give the --save or --output-dir folder of a training run"
        for folder in folders
        if folder.is_dir() and not is_run(folder)
    ]
    places = [folder.resolve() for folder in folders]
    wrong += [
        f"{folder}: given twice"
        for folder, place in dict(zip(folders, places, strict=True)).items()
        if places.count(place) > 1
    ]
    if wrong:
        raise UserError(*dict.fromkeys(wrong))
    return [replace(read_run(place), name=name) for place, name in zip(places, _names(places), strict=True)]


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder (`--save` or `--output-dir` of a training run).

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(_no_folder(folder))
    notes: list[str] = []
    if not (folder / METRICS).exists():
        notes.append(f"no {METRICS}")
    lines = read_lines(folder / METRICS, "iteration", notes)
    events = read_lines(folder / EVENTS, "what", notes)
    saved = checkpoints(folder)
    configs = [read_config(path / "config.yaml", notes) for _, path in saved]
    details = [read_object(path / "run.json", notes) for _, path in saved]
    if not saved:
        notes.append("no checkpoint")
    config = configs[-1] if configs else read_config(folder / "config.yaml", notes)
    began: dict[str, Any] = next((event for event in reversed(events) if event["what"] == "begin"), {})
    scores = _scores(folder, notes)
    return RunRecord(
        name=folder.name,
        folder=folder,
        training=[line for line in lines if "split" not in line],
        evaluations=[line for line in lines if "split" in line],
        result=scores.get("evaluation.json", {}),
        scores=scores,
        samples=_samples(read_json(folder / "samples.json", notes)),
        config=config,
        parameters=_parameters(saved[-1][1], details[-1].get("vocab_size")) if saved else None,
        details=details[-1] if details else {key: began[key] for key in began.keys() - {"time", "what", "iteration"}},
        changes=_changes([iteration for iteration, _ in saved], configs, details),
        events=events,
        ending=read_object(folder / "exit.json", []),
        bad_steps=_bad_steps(folder, notes),
        notes=notes,
    )


def _no_folder(folder: Path) -> str:
    return f"{folder}: no such run folder; give the --save folder of a training run"


def _names(places: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells them all apart."""
    for length in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]


def _scores(folder: Path, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Results of `tools/evaluate.py` by file name; of other JSON files nothing is said."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        content = read_object(path, notes) if path.name == "evaluation.json" else read_object(path, [])
        try:
            if path.name not in _NO_SCORES and list(score_rows(content)):
                found[path.name] = content
        except (AttributeError, KeyError, TypeError, ValueError):
            notes.append(f"{path.name} is no result of tools/evaluate.py")
    if not (folder / "evaluation.json").exists():
        notes.append("no evaluation.json")
    return found


def _bad_steps(folder: Path, notes: list[str]) -> dict[int, str]:
    """What the descriptions of skipped iterations say, in a sentence each."""
    found = {}
    for path in sorted((folder / "bad_steps").glob("iteration_*.json")):
        content = read_object(path, notes)
        if isinstance(content.get("iteration"), int) and "why" in content:
            found[content["iteration"]] = str(content["why"])
    return found


def _column(lines: list[dict[str, Any]], key: str) -> list[float]:
    return [float(line[key]) for line in lines if isinstance(line.get(key), int | float)]


def _parameters(checkpoint: Path, vocab_size: Any) -> int | None:
    """Counted by formula: a checkpoint of another version, whose options are not ours, has no count."""
    if not isinstance(vocab_size, int):
        return None
    try:
        return count_parameters(load(checkpoint / "config.yaml"), vocab_size).total
    except UserError:
        return None


def _changes(iterations: list[int], configs: list[dict[str, Any]], details: list[dict[str, Any]]) -> list[Change]:
    """Differences between the options and layouts of successive checkpoints."""
    changes = []
    for index in range(len(iterations) - 1):
        if configs[index] and configs[index + 1]:
            before, after = ({"layout": details[i].get("layout"), **configs[i]} for i in (index, index + 1))
            different = {name: pair for name, pair in differences(before, after).items() if name not in PLACES}
            if different:
                changes.append(Change(iterations[index], different))
    return changes


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Options whose values differ, by name: (before, after)."""
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _samples(content: Any) -> list[tuple[str, str]]:
    entries = content if isinstance(content, list) else [content]
    return [
        (str(entry.get("prompt", "")), str(entry["text"]))
        for entry in entries
        if isinstance(entry, dict) and "text" in entry
    ]
