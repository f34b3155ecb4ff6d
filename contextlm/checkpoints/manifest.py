"""The list of a checkpoint's files with their lengths and hashes: what was written is what will be read.

    manifest.json = {"format": 1, "files": {name: {"bytes": 4096, "sha256": "..."}}}

It is written last, so a checkpoint that has one is complete. Each rank hashes what it wrote. No torch.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

from contextlm import atomic_files
from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, RUN_FILE, RUN_KEYS
from contextlm.errors import UserError

MANIFEST = "manifest.json"
INDEX, COMMON, FORMAT_FILE = ".metadata", "common.pt", "metadata.json"  # torch's and megatron-core's
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
    """Write the manifest of a checkpoint, after all its other files.

    Raises:
        UserError: a file that a rank wrote is not here as it was there.
    """
    problems = [f"{name} {problem}" for name in files if (problem := _wrong_length(folder, name, files[name]))]
    if problems:
        raise UserError(
            f"checkpoint {folder} is not complete: {', '.join(problems)}; every host must have one shared --save folder"
        )
    atomic_files.write_json(folder / MANIFEST, {"format": _FORMAT, "files": dict(sorted(files.items()))})


def damage(folder: Path, *, hashes: bool = True, share: slice = slice(None)) -> list[str]:
    """What is wrong with the files of a checkpoint: a sentence each, which begins with the file.

    The parts without which nothing can be read are looked at without a manifest too. Further files are fine.

    Args:
        folder: the checkpoint.
        hashes: read all files; else only those parts are looked at.
        share: which of the files of the manifest, the largest first.
    """
    lacking = incomplete(folder)
    if not hashes:
        return lacking
    try:
        listed = read(folder) or {}
    except (OSError, ValueError) as error:
        return [*lacking, f"{MANIFEST} cannot be read: {error}"]
    found = [problem for problem in lacking if problem.split(" ")[0] not in listed]
    names = sorted(listed, key=lambda name: -int(listed[name]["bytes"]))[share]
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        problems = threads.map(lambda name: _problem(folder, name, listed[name]), names)
        return [*found, *(f"{name} {problem}" for name, problem in zip(names, problems, strict=True) if problem)]


def incomplete(folder: Path) -> list[str]:
    """Which of its parts a checkpoint lacks, as sentences; cheap."""
    found = [f"{name} is missing" for name in (INDEX, COMMON, CONFIG_FILE) if not (folder / name).is_file()]
    for name, needed in ((FORMAT_FILE, {"sharded_backend"}), (RUN_FILE, RUN_KEYS)):
        try:
            if lacking := needed - set(json.loads((folder / name).read_bytes())):
                found.append(f"{name} does not say {', '.join(sorted(lacking))}")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except (OSError, ValueError, TypeError) as error:
            found.append(f"{name} cannot be read: {error}")
    return found


def read(folder: Path) -> Digests | None:
    """What the manifest of a checkpoint lists; None for one that was saved before there were manifests.

    Raises:
        OSError, ValueError: it cannot be read, or is no manifest.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("files"), dict):
        raise ValueError(f"it is not of format {_FORMAT}")
    for name, digest in content["files"].items():
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(f"it names {name}, which is not in the folder")
        if not (isinstance(digest, dict) and isinstance(digest.get("bytes"), int) and "sha256" in digest):
            raise ValueError(f"it says no length and sha256 of {name}")
    return content["files"]


def _problem(folder: Path, name: str, listed: dict[str, int | str]) -> str | None:
    """What is wrong with one file, if anything is."""
    if (problem := _wrong_length(folder, name, listed)) is not None:
        return problem
    try:
        return None if _digest(folder / name) == listed else "has another sha256: what it holds was changed"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _wrong_length(folder: Path, name: str, listed: dict[str, int | str]) -> str | None:
    try:
        size = (folder / name).stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if size == listed["bytes"] else f"has {size:,} bytes in place of {listed['bytes']:,}"


def _digest(file: Path) -> dict[str, int | str]:
    found, size = hashlib.sha256(), 0
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
            size += len(block)
    return {"bytes": size, "sha256": found.hexdigest()}
