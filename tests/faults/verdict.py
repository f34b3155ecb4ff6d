"""Whether a run is the undisturbed one: every number, every tensor of its last checkpoint, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.stored_tensors import stored

TOLD = ("iteration", "split", "lm_loss", "grad_norm", "learning_rate", "consumed_samples", "perplexity")
TRACKER = "latest_checkpointed_iteration.txt"


def differences(found: Path, meant: Path, skipped: int | None = None) -> list[str]:
    """What is otherwise in a run's folder than in the undisturbed run's; [] if every bit is the same.

    Args:
        skipped: an iteration that updated nothing in both, for another reason: its gradient norm may differ.
    """
    problems = _of_metrics(metrics(found, skipped), metrics(meant, skipped))
    last = f"iter_{int((meant / TRACKER).read_text()):07d}"
    problems += [f"{name} is not there" for name in (TRACKER, last) if not (found / name).exists()]
    if problems:
        return problems
    if (found / TRACKER).read_text() != (meant / TRACKER).read_text():
        problems.append(f"the tracker says {(found / TRACKER).read_text()!r}")
    (ours, _), (theirs, _) = stored(found / last), stored(meant / last)
    problems += [f"{last}: tensors {sorted(ours.keys() ^ theirs.keys())}"] if ours.keys() != theirs.keys() else []
    problems += [f"{last}: {key} differs" for key in theirs if key in ours and not torch.equal(ours[key], theirs[key])]
    left = [path.name for path in found.iterdir() if path.suffix in (".tmp", ".old", ".part")]
    return problems + [f"{name} was left behind" for name in left]


def metrics(folder: Path, skipped: int | None = None) -> list[tuple[Any, ...]]:
    """What metrics.jsonl tells, without times; a half line counts as a difference."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    told = []
    for line in lines:
        try:
            content = json.loads(line)
            if content["iteration"] == skipped:
                content["grad_norm"] = None
            told.append(tuple(content.get(name) for name in TOLD))
        except (ValueError, KeyError):
            told.append(("no JSON", line))
    return told


def final_loss(folder: Path) -> float | None:
    """The last training loss."""
    losses = [line[2] for line in metrics(folder) if len(line) == len(TOLD) and line[1] is None]
    return losses[-1] if losses else None


def _of_metrics(found: list[tuple[Any, ...]], meant: list[tuple[Any, ...]]) -> list[str]:
    if found == meant:
        return []
    keys = [line[:2] for line in found]
    if keys != [line[:2] for line in meant]:
        return [f"metrics.jsonl has the lines {keys}"]
    first = next(ours for ours, theirs in zip(found, meant, strict=True) if ours != theirs)
    return [f"metrics.jsonl: iteration {first[0]} differs, its loss is {first[2]}"]
