"""What a run folder tells: its metrics, its results, its configuration, and where it was continued otherwise.

Reads JSON and YAML only and copes with missing pieces: a report of an unfinished run is still a report.
Read next: `report.py`.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contextlm.analysis.parameters import count_parameters
from contextlm.config import load
from contextlm.errors import UserError

_CHECKPOINT = re.compile(r"iter_(\d{7,})")


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
        samples: (prompt, continuation).
        config: options of the last checkpoint by name, without their sections.
        parameters: of the whole model, padding of the vocabulary left out; None if unknown.
        details: run.json of the last checkpoint.
        changes: where the run was continued with other options.
        notes: what is missing or could not be read, a sentence each.
    """

    name: str
    folder: Path
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    result: dict[str, Any]
    samples: list[tuple[str, str]]
    config: dict[str, Any]
    parameters: int | None
    details: dict[str, Any]
    changes: list[Change]
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
        """The last word on each split: its last line; for `validation` evaluation.json, if there is one."""
        last = {split: lines[-1] for split, lines in self.by_split.items()}
        return last | ({"validation": self.result} if self.result else {})

    def loss_without_context(self, split: str) -> float | None:
        """The last loss of a split with the context zeroed; None for a plain model."""
        lines = self.by_split.get(split, [])
        return next((x["lm_loss_context_zeroed"] for x in lines[::-1] if "lm_loss_context_zeroed" in x), None)


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder (`--save` or `--output-dir` of a training run).

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; give the --save folder of a training run")
    notes: list[str] = []
    lines = _read_lines(folder / "metrics.jsonl", notes)
    checkpoints = _checkpoints(folder)
    configs = [_read_config(path / "config.yaml", notes) for _, path in checkpoints]
    details = [_read_object(path / "run.json", notes) for _, path in checkpoints]
    if not checkpoints:
        notes.append("no checkpoint")
    return RunRecord(
        name=folder.name,
        folder=folder,
        training=[line for line in lines if "split" not in line],
        evaluations=[line for line in lines if "split" in line],
        result=_read_object(folder / "evaluation.json", notes),
        samples=_samples(_read_json(folder / "samples.json", notes)),
        config=configs[-1] if configs else {},
        parameters=_parameters(checkpoints[-1][1], details[-1].get("vocab_size")) if checkpoints else None,
        details=details[-1] if details else {},
        changes=_changes([iteration for iteration, _ in checkpoints], configs, details),
        notes=notes,
    )


def _column(lines: list[dict[str, Any]], key: str) -> list[float]:
    return [float(line[key]) for line in lines if isinstance(line.get(key), int | float)]


def _read_lines(file: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not file.exists():
        notes.append(f"no {file.name}")
        return []
    good, bad = [], 0
    for text in file.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            bad += 1
            continue
        if isinstance(line, dict) and "iteration" in line:
            good.append(line)
        else:
            bad += 1
    if bad:
        notes.append(f"{file.name}: {bad} line(s) that are no metrics were left out")
    return good


def _read_json(file: Path, notes: list[str]) -> Any:
    if not file.exists():
        notes.append(f"no {file.name}")
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        notes.append(f"{file.name} is no JSON: {error}")
        return None


def _read_object(file: Path, notes: list[str]) -> dict[str, Any]:
    content = _read_json(file, notes)
    return content if isinstance(content, dict) else {}


def _parameters(checkpoint: Path, vocab_size: Any) -> int | None:
    """Counted by formula: a checkpoint of another version, whose options are not ours, has no count."""
    if not isinstance(vocab_size, int):
        return None
    try:
        return count_parameters(load(checkpoint / "config.yaml"), vocab_size).total
    except UserError:
        return None


def _read_config(file: Path, notes: list[str]) -> dict[str, Any]:
    """The options of all sections in one dict; a field's name is unique in the whole tree."""
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        notes.append(f"{file.parent.name}/{file.name} cannot be read: {error}")
        return {}
    flat: dict[str, Any] = {}
    for key, value in (tree if isinstance(tree, dict) else {}).items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints up to the one that the tracker file names, oldest first."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in folder.iterdir())
    found = [(int(match[1]), path) for match, path in named if match]
    tracker = folder / "latest_checkpointed_iteration.txt"
    latest = tracker.read_text().strip() if tracker.exists() else ""
    return sorted(pair for pair in found if not latest.isdigit() or pair[0] <= int(latest))


def _changes(iterations: list[int], configs: list[dict[str, Any]], details: list[dict[str, Any]]) -> list[Change]:
    """Differences between the options and layouts of successive checkpoints."""
    changes = []
    for index in range(len(iterations) - 1):
        if configs[index] and configs[index + 1]:
            before, after = ({"layout": details[i].get("layout"), **configs[i]} for i in (index, index + 1))
            different = differences(before, after)
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
