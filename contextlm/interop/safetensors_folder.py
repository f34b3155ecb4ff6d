"""Weights in safetensors files: one file, or several with an index beside them.

Reading holds one tensor in memory, writing the tensors of one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contextlm import atomic_files
from contextlm.byte_words import size
from contextlm.errors import UserError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class WeightFiles(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read when it is asked for, and its file is closed again.

    Args:
        files: the file of each tensor.
        shapes: the shape of each tensor.
    """

    def __init__(self, files: dict[str, Path], shapes: dict[str, tuple[int, ...]]) -> None:
        self._files, self.shapes = files, shapes

    def __getitem__(self, name: str) -> Tensor:
        # A file that stayed open would stay in memory, page by page, as it is read.
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def find_weights(folder: Path) -> WeightFiles:
    """The tensors of a folder's safetensors files; none is read yet.

    Raises:
        UserError: there are none, some are missing or damaged, or the index does not say what is in them.
    """
    placed = _placed(folder)
    paths = [folder / name for name in (sorted(set(placed.values())) if placed else [WHOLE])]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(f"{folder}: {', '.join(missing)} is missing; fetch the folder again")
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                files |= dict.fromkeys(file.keys(), path)
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except SafetensorError as error:
            raise UserError(f"{path}: is damaged or cut off ({error}); fetch it again") from None
    if placed is not None and placed.keys() != files.keys():
        wrong = sorted(placed.keys() ^ files.keys())
        raise UserError(
            f"{folder / INDEX}: index and files differ in {', '.join(wrong[:3])}{' ...' * (len(wrong) > 3)}; "
            "fetch the folder again"
        )
    return WeightFiles(files, shapes)


def _placed(folder: Path) -> dict[str, str] | None:
    """Which file holds each tensor, by the index; None where there is one file without an index."""
    if not (folder / INDEX).is_file():
        if (folder / WHOLE).is_file():
            return None
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        remedy = (
            f"{pickled[0]} may execute code and is not read: save the model as safetensors with transformers first"
            if pickled
            else "give a folder with config.json and weights"
        )
        raise UserError(f"{folder}: holds no {WHOLE}; {remedy}")
    try:
        return dict(json.loads((folder / INDEX).read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / INDEX}: not an index of safetensors files ({error!r}); fetch it again") from None


def write_weights(
    folder: Path,
    weights: Iterable[tuple[str, Tensor]],
    total_bytes: int,
    max_file_bytes: int,
    progress: Callable[[str], None],
) -> list[Path]:
    """Write tensors as they come, a file whenever enough are there; returns the files.

    Args:
        folder: to write into.
        weights: names and tensors on the CPU.
        total_bytes: of all of them.
        max_file_bytes: of one file; a larger tensor has a file of its own.
        progress: told each file.
    """
    files: list[Path] = []
    placed: list[list[str]] = []
    waiting: dict[str, Tensor] = {}
    waiting_bytes = written = 0

    def flush() -> None:
        nonlocal waiting_bytes, written
        # The number of files is known at the end: until then they carry their number alone.
        path = folder / f"model-{len(files) + 1:05d}.safetensors"
        save_file(waiting, path, metadata={"format": "pt"})
        files.append(path)
        placed.append(list(waiting))
        written += waiting_bytes
        progress(f"wrote {path.name}: {size(written)} of {size(total_bytes)}")
        waiting.clear()
        waiting_bytes = 0

    for name, value in weights:
        if waiting and waiting_bytes + value.nbytes > max_file_bytes:
            flush()
        waiting[name] = value
        waiting_bytes += value.nbytes
    flush()
    count = len(files)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else [WHOLE]
    files = [path.rename(folder / name) for path, name in zip(files, names, strict=True)]
    if count > 1:
        weight_map = {name: file for names_of_file, file in zip(placed, names, strict=True) for name in names_of_file}
        atomic_files.write_json(folder / INDEX, {"metadata": {"total_size": written}, "weight_map": weight_map})
    return files
