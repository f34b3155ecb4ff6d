"""A package that megatron-core looks for, and that is broken, is absent (contextlm/megatron/broken_packages.py)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from contextlm.megatron import broken_packages


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes a module of a package that can be imported in this test; absent before and after."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] in ("transformer_engine", "apex")]:
        monkeypatch.delitem(sys.modules, name)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] in ("transformer_engine", "apex")]:
        del sys.modules[name]


def test_one_of_another_cuda_is_absent(write):
    write("transformer_engine/__init__.py", "raise OSError('libcublas.so.13: cannot open shared object file')")
    with pytest.raises(OSError, match="libcublas"):  # what megatron-core would meet, and not expect
        import transformer_engine  # noqa: F401
    broken_packages.hide()
    with pytest.raises(ImportError):
        import transformer_engine  # noqa: F401
    with pytest.raises(ImportError):
        importlib.import_module("transformer_engine.pytorch")


def test_one_without_its_half_for_torch_is_absent(write):
    write("transformer_engine/__init__.py", "")
    importlib.import_module("transformer_engine")
    broken_packages.hide()
    with pytest.raises(ImportError):
        importlib.import_module("transformer_engine")


def test_a_sound_one_and_an_absent_one_stay_as_they_are(write):
    write("transformer_engine/__init__.py", "")
    write("transformer_engine/pytorch.py", "")
    broken_packages.hide()
    assert importlib.import_module("transformer_engine.pytorch")
    assert "apex" not in sys.modules
