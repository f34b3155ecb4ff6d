"""Read a checkpoint without executing anything that its files say.

What is wrong: torch reads the index of a checkpoint, `.metadata`, with `pickle.load` (distributed/checkpoint/
filesystem.py:930), and byte objects in `.distcp` files with `torch.load(weights_only=False)` (default_planner.py:387,
reached by megatron-core's ShardedObjects); megatron-core reads `common.pt` with torch's default, which an environment
variable or an old torch makes unsafe (dist_checkpointing/strategies/common.py:79). Each of them runs what it is given.
The mend: the index may name the classes that an index is made of and nothing else, no byte objects and no files
elsewhere; `common.pt` holds tensors and plain values.
Test: tests/distributed/test_malicious_checkpoints.py.
"""

from __future__ import annotations

import inspect
import pickle
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader, Metadata
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex, StorageMeta

from contextlm.errors import UserError
from contextlm.megatron.rewrite import SourceChanged

INDEX, COMMON = ".metadata", "common.pt"
_CHECKPOINT = "torch.distributed.checkpoint"
_ALLOWED = {
    *((f"{_CHECKPOINT}.metadata", name) for name in (
        "Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "TensorProperties",
        "ChunkStorageMetadata", "BytesStorageMetadata", "_MEM_FORMAT_ENCODING",
    )),
    *((f"{_CHECKPOINT}.filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    *((f"{_CHECKPOINT}.planner", name) for name in ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData")),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}  # fmt: skip
_REMEDY = "use another checkpoint"


class _IndexUnpickler(pickle.Unpickler):
    """Knows the classes of an index; whatever else a file names is an error before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, or the dtype."""
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if (module, name) == ("builtins", "getattr"):
            return _member
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no index needs and which may execute code")
        return super().find_class(module, name)


def _member(of: Any, name: str) -> Enum:
    """A member of an enumeration and nothing else: `getattr(class, name)`, as Python 3.11 before 3.11.4 pickles it."""
    if not (isinstance(of, type) and issubclass(of, Enum) and name in of.__members__):
        raise pickle.UnpicklingError(f"takes {name!r} from {of!r}, which is no member of an enumeration")
    return of[name]


def read_index(folder: Path) -> Metadata:
    """The index of a checkpoint: its tensors, and where in its files they lie.

    Raises:
        UserError: it is missing or damaged, names what may execute code, holds byte objects or other folders' files.
    """
    path = folder / INDEX
    try:
        with open(path, "rb") as stream:
            index = _IndexUnpickler(stream).load()
    except Exception as error:  # damaged bytes raise anything
        raise UserError(f"checkpoint {folder}: {INDEX} cannot be read: {_first_line(error)}; {_REMEDY}") from None
    if not (isinstance(index, Metadata) and isinstance(index.storage_data, dict)):
        raise UserError(f"checkpoint {folder}: {INDEX} is not the index of a checkpoint; {_REMEDY}")
    for key, entry in index.state_dict_metadata.items():
        if isinstance(entry, BytesStorageMetadata):
            place = index.storage_data.get(MetadataIndex(key))
            file = "no file" if place is None else place.relative_path
            raise UserError(
                f"checkpoint {folder}: {file} holds {key} as a pickle, which may execute code, and not as a tensor; "
                f"{_REMEDY}"
            )
    for file in {place.relative_path for place in index.storage_data.values()}:
        if PurePath(file).name != file:
            raise UserError(f"checkpoint {folder}: {INDEX} names {file}, which is not a file of it; {_REMEDY}")
    return index


def read_common(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        UserError: the file is missing or damaged, or holds more than that.
    """
    try:
        found = torch.load(folder / COMMON, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"checkpoint {folder}: {COMMON} is damaged, or holds what may execute code and not plain values; {_REMEDY}"
        ) from None
    except Exception as error:  # damaged bytes raise anything
        raise UserError(f"checkpoint {folder}: {COMMON} cannot be read: {_first_line(error)}; {_REMEDY}") from None
    if not isinstance(found, dict):
        raise UserError(f"checkpoint {folder}: {COMMON} holds no values by name; {_REMEDY}")
    return found


def _read_metadata(self: FileSystemReader, *args: Any, **kwargs: Any) -> Metadata:
    if kwargs.get("rank") is not None:
        raise UserError(f"checkpoint {self.path}: an index for each rank is nothing that we write; {_REMEDY}")
    index = read_index(Path(self.path))
    index.storage_meta = index.storage_meta or StorageMeta()
    index.storage_meta.load_id = self.load_id
    return index


class SafeReader(FileSystemReader):
    """torch's reader of a checkpoint's tensors, with our way to read its index, where the mend is not installed."""

    read_metadata = _read_metadata


def _load_bytes(self: DefaultLoadPlanner, read_item: Any, value: Any) -> None:
    raise UserError(f"{read_item.dest_index.fqn}: is stored as a pickle, which may execute code; {_REMEDY}")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    from megatron.core.dist_checkpointing.strategies.common import TorchCommonLoadStrategy

    if FileSystemReader.read_metadata is _read_metadata:
        return
    for function, piece in (
        (FileSystemReader.read_metadata, "pickle.load(metadata_file)"),
        (DefaultLoadPlanner.load_bytes, "weights_only=False"),
        (TorchCommonLoadStrategy.load_common, "torch.load(load_path, map_location='cpu')"),
    ):
        if piece not in inspect.getsource(function):
            raise SourceChanged(f"{function.__qualname__}: is this mend still needed?")
    FileSystemReader.read_metadata = _read_metadata  # type: ignore[method-assign]
    DefaultLoadPlanner.load_bytes = _load_bytes  # type: ignore[method-assign]
    TorchCommonLoadStrategy.load_common = lambda self, checkpoint_dir: read_common(Path(checkpoint_dir))
