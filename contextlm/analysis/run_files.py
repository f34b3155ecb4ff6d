"""Reads the files of a run folder as far as they can be read; what is missing or damaged becomes a sentence.

JSON and YAML only. Read next: `run_record.py`, which puts them together.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
_CHECKPOINT = re.compile(r"iter_(\d{7,})")


def read_lines(file: Path, key: str, notes: list[str]) -> list[dict[str, Any]]:
    """The objects of a .jsonl file that have `key`; a killed run leaves half a line.

    Args:
        file: need not be there.
        key: what each line must have.
        notes: gets a sentence for what was left out.
    """
    if not file.exists():
        return []
    good, bad = [], 0
    for text in file.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            bad += 1
            continue
        if isinstance(line, dict) and key in line:
            good.append(line)
        else:
            bad += 1
    if bad:
        notes.append(f"{file.name}: {bad} line(s) that cannot be read were left out")
    return good


def read_json(file: Path, notes: list[str]) -> Any:
    """What a JSON file holds; None and a sentence where that cannot be told."""
    try:
        return json.loads(file.read_text())
    except OSError:
        notes.append(f"no {file.name}")
    except ValueError as error:
        notes.append(f"{file.name} is no JSON: {error}")
    return None


def read_object(file: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    content = read_json(file, notes)
    return content if isinstance(content, dict) else {}


def read_config(file: Path, notes: list[str]) -> dict[str, Any]:
    """The options of all sections in one dict; a field's name is unique in the whole tree."""
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"{file.parent.name}/{file.name} cannot be read: {error}")
        return {}
    flat: dict[str, Any] = {}
    for key, value in (tree if isinstance(tree, dict) else {}).items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat


def is_run(folder: Path) -> bool:
    """Whether a training run has left anything of its own in a folder."""
    return any((folder / name).is_file() for name in (METRICS, EVENTS)) or bool(checkpoints(folder))


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(iteration, folder) of the checkpoints up to the one that the tracker file names, oldest first."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in folder.iterdir())
    found = [(int(match[1]), path) for match, path in named if match]
    tracker = folder / "latest_checkpointed_iteration.txt"
    latest = tracker.read_text(errors="replace").strip() if tracker.exists() else ""
    return sorted(pair for pair in found if not latest.isdigit() or pair[0] <= int(latest))
