"""What a study found: losses by arm and seed, and the files that say so.

Read next: `differences.py`, `page.py` (`results.md`), `pictures.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextlm import atomic_files
from contextlm.analysis.curves import loss_plot
from contextlm.analysis.run_record import RunRecord, read_run
from contextlm.analysis.seed_groups import SeedGroup
from contextlm.comparison.differences import Difference, Losses, paired_differences
from contextlm.comparison.page import results_page
from contextlm.comparison.pictures import difference_picture
from contextlm.comparison.runs import Run
from contextlm.comparison.study import Study


def write_results(study: Study, runs: Sequence[Run], folder: Path) -> str:
    """Write `results.md`, `results.json` and two pictures into the study's folder; returns the Markdown."""
    finished = {run: read_run(run.folder) for run in runs if run.is_finished()}
    losses: dict[str, dict[int, float]] = {name: {} for name in study.arms}
    for run in finished:
        if (loss := run.loss()) is not None:
            losses[run.arm.name][run.seed] = loss
    found, notes = paired_differences(study, losses), _notes(runs, finished)
    arms = [SeedGroup(name, tuple(finished[run] for run in finished if run.arm.name == name)) for name in study.arms]
    page = results_page(study, losses, found, notes)
    atomic_files.write_bytes(folder / "differences.svg", difference_picture(found).encode())
    atomic_files.write_bytes(folder / "losses.svg", loss_plot([arm for arm in arms if arm.runs]).encode())
    atomic_files.write_json(folder / "results.json", _content(study, losses, found, notes))
    atomic_files.write_bytes(folder / "results.md", page.encode())
    return page


def _notes(runs: Sequence[Run], finished: Mapping[Run, RunRecord]) -> list[str]:
    """What a reader must know before believing the table."""
    notes = [f"{run.name} is not finished." for run in runs if run not in finished]
    notes += [f"{run.name} diverged: it has no loss." for run in finished if run.loss() is None]
    for seed in sorted({run.seed for run in finished}):
        read = {record.details.get("data_fingerprint") for run, record in finished.items() if run.seed == seed}
        if len(read) > 1:
            notes.append(f"Runs of seed {seed} have read different data: they are no pairs.")
    commits = {str(record.details.get("git_commit"))[:12] for record in finished.values()}
    if len(commits) > 1:
        notes.append(f"Runs were made with different code: {', '.join(sorted(commits))}.")
    return notes


def _content(study: Study, losses: Losses, found: Sequence[Difference], notes: Sequence[str]) -> dict[str, Any]:
    """`results.json`."""
    arms = {
        arm.name: {
            "parameters": arm.parameters,
            "flops_per_token": arm.flops_per_token,
            "match_residual": None if arm.match is None else arm.match.residual,
            "losses": losses[arm.name],
        }
        for arm in study.arms.values()
    }
    pairs = [
        {
            "arm": pair.arm,
            "baseline": pair.baseline,
            "by_seed": pair.by_seed,
            "mean": None if pair.interval is None else pair.interval.mean,
            "low": None if pair.interval is None else pair.interval.low,
            "high": None if pair.interval is None else pair.interval.high,
        }
        for pair in found
    ]
    return {"study": study.name, "arms": arms, "differences": pairs, "notes": list(notes)}
