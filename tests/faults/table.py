"""What came of the trials, in words."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from contextlm import atomic_files
from tests.faults.controls import WORDS
from tests.faults.kinds import KINDS


def is_good(result: dict[str, Any]) -> bool:
    """Whether a trial held, or a control was noticed for what it is."""
    problem, control = result["problem"], result["control"]
    return problem is None if control is None else problem is not None and WORDS[control] in problem


def line_of(count: int, total: int, result: dict[str, Any]) -> str:
    """One trial."""
    control = f", broken by {result['control']}" if result["control"] else ""
    said = f"{'noticed' if control else 'FAILED'}: {result['problem']}" if result["problem"] else result["outcome"]
    name = f"{result['kind']} --seed {result['seed']} ({result['layout_and_options']}, {result['seconds']:.1f} s"
    return f"[{count}/{total}] {name}; hit {result['hit']}{control}): {said}"


class Account:
    """Of a soak, on disk after every trial: one that is killed leaves what it has.

    Args:
        out: the folder for it; None for none.
    """

    def __init__(self, out: Path | None) -> None:
        self.results: list[dict[str, Any]] = []
        self._out = out
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "trials.jsonl").unlink(missing_ok=True)

    def add(self, result: dict[str, Any], folder: Path) -> None:
        """One more trial, of those in `folder`."""
        self.results.append(result)
        if self._out is None:
            return
        with open(self._out / "trials.jsonl", "a") as file:
            file.write(json.dumps(result) + "\n")
        atomic_files.write_bytes(self._out / "table.md", self.table().encode())
        log = folder / name_of(result["kind"], result["seed"], result["control"]) / "log"
        if not is_good(result) and log.exists():
            shutil.copyfile(log, self._out / f"{log.parent.name}.log")

    def table(self) -> str:
        """All trials by fault, in markdown."""
        lines = [
            "| fault | trials | what came of it | what it hit | every number equal | worst seconds to go on |",
            "|---|---|---|---|---|---|",
        ]
        for kind, entry in KINDS.items():
            rows = [row for row in self.results if row["kind"] == kind and row["control"] is None]
            lines += [_row(entry.words, rows)] if rows else []
        for row in self.results:
            if row["control"]:
                noticed = "noticed" if is_good(row) else "NOT NOTICED"
                lines.append(f"| control: {row['control'].replace('_', ' ')} | 1 | {noticed} | {row['hit']} | no | - |")
        return "\n".join([*lines, "", _losses(self.results)]) + "\n"


def name_of(kind: str, seed: int, control: str | None) -> str:
    """Of a trial's folder."""
    return f"{kind}-{seed}{f'-{control}' if control else ''}"


def _row(words: str, rows: list[dict[str, Any]]) -> str:
    outcomes = Counter(row["outcome"] if is_good(row) else "FAILED" for row in rows)
    waits = [row["seconds_to_recover"] for row in rows if row["seconds_to_recover"] is not None]
    return (
        f"| {words} | {len(rows)} | {_counts(outcomes)} | {_counts(Counter(row['hit'] for row in rows))} | "
        f"{sum(row['equal'] for row in rows)} of {len(rows)} | {f'{max(waits):.1f}' if waits else '-'} |"
    )


def _losses(results: list[dict[str, Any]]) -> str:
    """Those of the undisturbed runs; one told to skip an iteration is another run."""
    equal = [row for row in results if row["equal"] and row["kind"] != "nan-skipped"]
    found = sorted({(row["layout"], row["final_loss"]) for row in equal})
    losses = ", ".join(f"{layout} {loss!r}" for layout, loss in found)
    return f"Last training loss of {len(equal)} trials and of the undisturbed runs: {losses}."


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {words}" for words, count in counter.most_common())
