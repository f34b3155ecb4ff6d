"""Whatever a checkpoint's files say, loading it runs none of it; each bait is alive: plain torch does run it."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import default_planner, filesystem
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.state_dict_loader import load

from contextlm.checkpoints import manifest
from contextlm.config.schema import DataConfig
from contextlm.data.tokenizers import build_tokenizer
from contextlm.megatron.safe_loading import read_index
from tests.distributed import integrity_cases as cases
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train

OBJECT = "decoder.layers.self_attention._extra_state/shard_0_1"


class Bait:
    """Unpickled, it makes a folder."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.trap),)


def in_common(folder: Path, trap: Path) -> str:
    content = torch.load(folder / "common.pt", weights_only=True)
    torch.save(content | {"more": Bait(trap)}, folder / "common.pt")
    return "common.pt"


def in_index(folder: Path, trap: Path) -> str:
    index = read_index(folder)
    index.planner_data = Bait(trap)
    (folder / ".metadata").write_bytes(pickle.dumps(index))
    return ".metadata"


def in_object(folder: Path, trap: Path, key: str = OBJECT) -> str:
    """An object of megatron-core's kind behind the tensors of a file."""
    index, name = read_index(folder), "__1_0.distcp"
    with open(folder / name, "ab") as stream:
        offset = stream.tell()
        torch.save(Bait(trap), stream)
        length = stream.tell() - offset
    index.state_dict_metadata[key] = BytesStorageMetadata()
    index.storage_data[MetadataIndex(key)] = filesystem._StorageInfo(name, offset, length)
    (folder / ".metadata").write_bytes(pickle.dumps(index))
    return name


def in_place_of_a_weight(folder: Path, trap: Path) -> str:
    return in_object(folder, trap, "embedding.word_embeddings.weight")


BAITS = {"common.pt": in_common, "index": in_index, "object": in_object, "weight": in_place_of_a_weight}


def plain(module: ModuleType) -> ModuleType:
    """A module of torch as it is on the disk, without our mend."""
    specification = importlib.util.spec_from_file_location(f"{module.__name__}_again", module.__file__)
    fresh = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fresh)
    return fresh


def load_plainly(folder: Path, name: str) -> None:
    """What torch does with each file."""
    if name == "common.pt":
        torch.load(folder / name, weights_only=False)
        return
    reader = plain(filesystem).FileSystemReader(folder)
    if name == ".metadata":
        reader.read_metadata()
        return
    keys = (OBJECT, "embedding.word_embeddings.weight")
    entries = reader.read_metadata().state_dict_metadata
    wanted: dict[str, Any] = {key: b"" for key in keys if isinstance(entries.get(key), BytesStorageMetadata)}
    load(wanted, storage_reader=reader, planner=plain(default_planner).DefaultLoadPlanner(), no_dist=True)


@pytest.fixture(scope="module")
def sound(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `iter_` folder."""
    folder = tmp_path_factory.mktemp("sound")
    pool.run(train, 2, folder=str(folder), steps=1, values=cases.BATCH)
    build_tokenizer(DataConfig(tokenizer_type="ByteTokenizer")).save(folder / "iter_0000001")  # tools want one
    return folder / "iter_0000001"


def test_nothing_that_a_checkpoint_says_is_run(pool: Pool, sound: Path, tmp_path: Path) -> None:
    names: dict[Path, str] = {}
    for kind, plant in BAITS.items():
        folder = shutil.copytree(sound, tmp_path / kind / "iter_0000001")
        names[folder] = plant(folder, tmp_path / kind / "trap")
        manifest.write(folder, manifest.digests(folder, manifest.read(folder)))
        assert manifest.damage(folder) == []
    folders = [str(folder) for folder in names]
    found = pool.run(cases.load_each, 2, folders=folders, values={})
    messages = [[problem for problem, _ in results] for results in found]
    messages += pool.run(cases.open_each, 1, folders=folders)
    for of_one_rank in messages:
        for (folder, name), message in zip(names.items(), of_one_rank, strict=True):
            assert str(folder) in message and name in message and "execute code" in message, message
    traps = [folder.parent / "trap" for folder in names]
    assert not any(trap.exists() for trap in traps)
    # The control: each bait is alive.
    for (folder, name), trap in zip(names.items(), traps, strict=True):
        load_plainly(folder, name)
        assert trap.exists(), name


@pytest.mark.parametrize("name", ["../iter_0000001/__0_0.distcp", "/etc/passwd"])
def test_an_index_names_files_of_its_own_folder_alone(sound: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(sound, tmp_path / "iter_0000001")
    index = read_index(folder)
    key = next(iter(index.storage_data))
    index.storage_data[key].relative_path = name
    (folder / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match="which is not a file of it"):
        read_index(folder)


@pytest.mark.parametrize("call", [eval, os.system, pickle.loads, torch.load, torch.hub.load, setattr])
def test_an_index_may_name_no_function(tmp_path: Path, call: Any) -> None:
    """But getattr: it becomes one that knows enumerations alone (tests/unit/megatron/test_safe_loading.py)."""
    (tmp_path / ".metadata").write_bytes(pickle.dumps(call))
    with pytest.raises(ValueError, match="execute code"):
        read_index(tmp_path)
