"""The list of a checkpoint's files with their lengths and hashes: what was written is what will be read.

    manifest.json = {"format": 1, "files": {name: {"bytes": 4096, "sha256": "..."}}}

It is written last, so a checkpoint that has one is complete. Each rank hashes what it wrote. No torch.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contextlm import atomic_files

MANIFEST = "manifest.json"
_FORMAT = 1
_BLOCK = 2**20
_THREADS = 4

# Length and hash of each file, by its name relative to the checkpoint: {"bytes": 4096, "sha256": "..."}.
Digests = dict[str, dict[str, int | str]]


def written_by(folder: Path, rank: int) -> list[str]:
    """The files that a rank answers for: its own shards; those that no rank's number marks are the first one's."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    others = [name for name in names if rank == 0 and not fnmatch.fnmatch(name, "__*_*.distcp") and name != MANIFEST]
    return sorted(fnmatch.filter(names, f"__{rank}_*.distcp") + others)


def digests(folder: Path, names: Iterable[str]) -> Digests:
    """Length and hash of some files of a checkpoint, read by threads; any thread may call it, no rank waits.

    Raises:
        OSError: one of them cannot be read.
    """
    names = list(names)
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        return dict(zip(names, threads.map(lambda name: _digest(folder / name), names), strict=True))


def write(folder: Path, files: Digests) -> None:
    """Write the manifest of a checkpoint, after all its other files."""
    atomic_files.write_json(folder / MANIFEST, {"format": _FORMAT, "files": dict(sorted(files.items()))})


def _digest(file: Path) -> dict[str, int | str]:
    found, size = hashlib.sha256(), 0
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
            size += len(block)
    return {"bytes": size, "sha256": found.hexdigest()}
