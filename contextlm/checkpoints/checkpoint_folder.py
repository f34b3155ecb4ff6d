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
from typing import Any, NamedTuple

from contextlm import atomic_files
from contextlm.errors import UserError

TRACKER = "latest_checkpointed_iteration.txt"
RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
RUN_KEYS = frozenset({"iteration", "consumed_samples", "world_size"})  # what every run.json says
_NAME = re.compile(r"iter_(\d{7,})")
_UNFINISHED, _REPLACED = ".tmp", ".old"


def iteration_folder(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return Path(root) / f"iter_{iteration:07d}"


class Candidates(NamedTuple):
    """The checkpoints that a load may use.

    Attributes:
        folders: the one in force, then older ones, newest first; none where nothing was saved.
        problem: what is wrong with the tracker, if anything is: then the newest is first.
    """

    folders: list[Path]
    problem: str | None = None

    @property
    def first(self) -> Path | None:
        """The one in force."""
        return self.folders[0] if self.folders else None

    @property
    def are_there(self) -> bool:
        """Whether anything was ever saved: also true where a tracker names what is lost."""
        return bool(self.folders) or self.problem is not None


def candidates(path: str | Path) -> Candidates:
    """The checkpoints of a `--save` folder, or the `iter_` folder itself. Whether they are intact is not looked at."""
    path = Path(path)
    if _NAME.fullmatch(path.name) and path.is_dir():
        return Candidates([path])
    tracker, folders = path / TRACKER, _by_iteration(path)
    newest_first = [folders[iteration] for iteration in sorted(folders, reverse=True)]
    try:
        named = tracker.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        problem = f"{tracker} is missing" if folders else None
    except OSError as error:
        problem = f"{tracker} cannot be read: {error.strerror}"
    else:
        iteration = int(named) if named.strip().isdigit() and len(named) < 20 else None
        if iteration in folders:
            return Candidates([folders[i] for i in sorted(folders, reverse=True) if i <= iteration])
        problem = f"{tracker} holds {named[:20]!r}, which names no checkpoint that is there"
    return Candidates(newest_first, problem)


def find(path: str | Path) -> Path | None:
    """The checkpoint in force of a `--save` folder, or the `iter_` folder itself; None where there is none.

    It is not looked at: `selection.py` says whether it may be used.
    """
    return candidates(path).first


def _by_iteration(root: Path) -> dict[int, Path]:
    """The complete checkpoints of a folder. One whose replacement was cut short keeps its other name until a save."""
    found: dict[int, Path] = {}
    for entry in sorted(root.glob("iter_*")):  # iter_1 before iter_1.old
        name = _NAME.fullmatch(entry.name.removesuffix(_REPLACED))
        if name is not None and entry.is_dir():
            found.setdefault(int(name[1]), entry)
    return found


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` of a checkpoint says.

    Raises:
        UserError: it is missing or damaged: the checkpoint is incomplete.
    """
    try:
        found = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {folder} is incomplete: {RUN_FILE}: {error}; use another checkpoint") from None
    if not isinstance(found, dict):
        raise UserError(f"checkpoint {folder} is incomplete: {RUN_FILE} says nothing of a run; use another checkpoint")
    return found


def temporary_folder(root: str | Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is written before it counts."""
    return iteration_folder(root, iteration).with_suffix(_UNFINISHED)


def begin(temporary: Path) -> list[str]:
    """Make the temporary folder, empty. No other save to that `--save` folder may be under way.

    Returns:
        what saves that were killed had left and is gone now, or has its name again: a sentence each.
    """
    said = []
    for entry in sorted(temporary.parent.glob("iter_*")):
        if not _NAME.fullmatch(entry.stem) or entry.suffix not in (_UNFINISHED, _REPLACED):
            continue
        folder = entry.with_suffix("")
        if entry.suffix == _REPLACED and not folder.exists():
            entry.rename(folder)
            said.append(f"{folder} has its name again: a save that was killed had renamed it")
        else:
            shutil.rmtree(entry, ignore_errors=True)
            said.append(f"{entry} is removed: a save that was killed had left it")
    temporary.mkdir(parents=True)
    return said


def discard(folder: Path) -> None:
    """Remove what does not count; what cannot be removed does no harm."""
    shutil.rmtree(folder, ignore_errors=True)


def publish(temporary: Path, iteration: int) -> Path:
    """Give a complete checkpoint its name, then point the tracker at it; returns its folder."""
    for file in temporary.rglob("*"):
        if file.is_file():
            atomic_files.sync(file)
    atomic_files.sync(temporary)
    folder = temporary.with_suffix("")
    replaced = folder.with_suffix(_REPLACED)
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    temporary.rename(folder)
    atomic_files.sync(folder.parent)  # or the disk might learn of the tracker first
    shutil.rmtree(replaced, ignore_errors=True)
    atomic_files.write_bytes(folder.parent / TRACKER, f"{iteration}\n".encode())
    atomic_files.sync(folder.parent)
    return folder
