"""The readers that torch and megatron-core use are ours; what they refuse: test_malicious_checkpoints.py."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest


def test_the_mend_is_installed_once(layout):
    from megatron.core.dist_checkpointing.strategies.cached_metadata_filesystem_reader import (
        CachedMetadataFileSystemReader,
    )
    from torch.distributed.checkpoint import FileSystemReader

    from contextlm.megatron import safe_loading

    before = FileSystemReader.read_metadata
    safe_loading.install()  # changes nothing
    assert FileSystemReader.read_metadata is before is safe_loading.SafeReader.read_metadata
    assert issubclass(CachedMetadataFileSystemReader, FileSystemReader)


def test_another_torch_is_refused(layout, monkeypatch):
    from torch.distributed.checkpoint import FileSystemReader

    from contextlm.megatron import safe_loading
    from contextlm.megatron.rewrite import SourceChanged

    monkeypatch.setattr(FileSystemReader, "read_metadata", lambda self: None)
    with pytest.raises(SourceChanged, match="is this mend still needed"):
        safe_loading.install()


def test_no_planner_reads_objects_whatever_the_index_says(layout):
    """A second lock: behind the index, which is refused where it names objects."""
    from megatron.core.dist_checkpointing.strategies.torch import MCoreLoadPlanner
    from torch.distributed.checkpoint import DefaultLoadPlanner

    item = SimpleNamespace(dest_index=SimpleNamespace(fqn="a/shard_0_1"))
    for planner in (DefaultLoadPlanner(), MCoreLoadPlanner()):
        with pytest.raises(ValueError, match="a/shard_0_1: is stored as a pickle"):
            planner.load_bytes(item, io.BytesIO())


def test_common_values_are_plain_even_if_the_environment_says_otherwise(layout, tmp_path, monkeypatch):
    import torch
    from megatron.core.dist_checkpointing.strategies.common import TorchCommonLoadStrategy

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"a": io.StringIO("no plain value")}, tmp_path / "common.pt")
    with pytest.raises(ValueError, match="common.pt is damaged, or holds what may execute code"):
        TorchCommonLoadStrategy().load_common(str(tmp_path))
    torch.save({"a": [1, 2.0, "b"]}, tmp_path / "common.pt")
    assert TorchCommonLoadStrategy().load_common(str(tmp_path)) == {"a": [1, 2.0, "b"]}
    torch.save([1], tmp_path / "common.pt")
    with pytest.raises(ValueError, match="holds no values by name"):
        TorchCommonLoadStrategy().load_common(str(tmp_path))


class Attribute:
    """Pickled as `getattr(of, name)`: by Python 3.11.0 to 3.11.3 (Debian 12) a member of an enumeration is."""

    def __init__(self, of: object, name: str) -> None:
        self.of, self.name = of, name

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, str]]:
        return getattr, (self.of, self.name)


def test_members_of_enumerations_are_read_as_every_python_writes_them(tmp_path):
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

    from contextlm.megatron.safe_loading import read_index

    def read(value: object) -> object:
        index = Metadata(state_dict_metadata={}, planner_data=value, storage_data={})
        (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
        return read_index(tmp_path).planner_data

    name = "TORCH_CHANNELS_LAST"
    for written in (_MEM_FORMAT_ENCODING[name], Attribute(_MEM_FORMAT_ENCODING, name)):
        assert read(written) is _MEM_FORMAT_ENCODING[name]
    for of, attribute in ((Metadata, "__init__"), (_MEM_FORMAT_ENCODING, "__init_subclass__")):
        with pytest.raises(ValueError, match="which is no member of an enumeration"):
            read(Attribute(of, attribute))
