"""The files around a checkpoint: where it is, when it counts, which run made it. No torch.

    <save>/latest_checkpointed_iteration.txt   the newest complete iteration
    <save>/iter_0000100/                       megatron-core's torch_dist files, and
        config.yaml  run.json  contextlm_tokenizer.json ...

A checkpoint is written under `iter_0000100.tmp` and renamed when it is complete; the tracker is replaced
after that. A kill at any moment leaves the previous one in force.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from contextlm import atomic_files
from contextlm.errors import UserError

TRACKER = "latest_checkpointed_iteration.txt"
RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"


def iteration_folder(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return Path(root) / f"iter_{iteration:07d}"


def find(path: str | Path) -> Path | None:
    """The newest checkpoint of a `--save` folder, or the `iter_` folder itself; None where there is none.

    Raises:
        UserError: the tracker cannot be read or names a folder that is not there.
    """
    path = Path(path)
    if re.fullmatch(r"iter_\d{7,}", path.name) and path.is_dir():
        return path
    tracker = path / TRACKER
    present = sorted(entry.name for entry in path.glob("iter_*") if (entry / RUN_FILE).exists() and not entry.suffix)
    remedy = f"write the number of a complete one into it ({', '.join(present) or 'none is there'})"
    if not tracker.exists():
        if present:
            raise UserError(f"{tracker}: is missing, but there are checkpoints; {remedy}")
        return None
    text = tracker.read_text().strip()
    if not text.isdigit():
        raise UserError(f"{tracker}: holds {text!r}, not an iteration; {remedy}")
    folder = iteration_folder(path, int(text))
    if not folder.is_dir():
        raise UserError(f"{tracker}: names iteration {text}, but {folder} is not there; {remedy}")
    return folder


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` of a checkpoint says.

    Raises:
        UserError: it is missing or damaged: the checkpoint is incomplete.
    """
    try:
        return json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {folder} is incomplete: {RUN_FILE}: {error}; use another checkpoint") from None


def temporary_folder(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is written before it counts."""
    return iteration_folder(root, iteration).with_suffix(".tmp")


def begin(temporary: Path) -> None:
    """Make the temporary folder, empty."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def publish(temporary: Path, iteration: int) -> Path:
    """Give a complete checkpoint its name, then point the tracker at it; returns its folder."""
    for file in temporary.rglob("*"):
        if file.is_file():
            atomic_files.sync(file)
    atomic_files.sync(temporary)
    folder = temporary.with_suffix("")
    replaced = folder.with_suffix(".old")
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    atomic_files.write_bytes(folder.parent / TRACKER, f"{iteration}\n".encode())
    atomic_files.sync(folder.parent)
    return folder
