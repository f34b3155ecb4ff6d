"""Segments of a GPU's memory grow, unless the environment says something of them, or the GPU cannot have it."""

from __future__ import annotations

import pytest
import torch

from contextlm.parallel.gpu_memory import VARIABLES, grow_segments

HOMES = {
    "today's torch": (torch._C, "_accelerator_setAllocatorSettings"),
    "torch 2.8": (torch.cuda.memory, "_set_allocator_settings"),
}


@pytest.fixture(params=HOMES)
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch is told, by the function that it has; a GPU that takes it."""
    found: list[str] = []
    for name, home in HOMES.items():
        if name == request.param:
            monkeypatch.setattr(*home, found.append, raising=False)
        else:
            monkeypatch.delattr(*home, raising=False)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    return found


def test_they_grow(said: list[str]) -> None:
    grow_segments()
    assert said == ["expandable_segments:True"]


def test_the_environment_holds_where_torch_reads_it(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    is_newer = hasattr(*HOMES["today's torch"])
    for variable in VARIABLES:
        said.clear()
        monkeypatch.setenv(variable, "")
        grow_segments()
        assert len(said) == 1
        monkeypatch.setenv(variable, "max_split_size_mb:512")
        grow_segments()
        assert len(said) == (1 if is_newer or variable == "PYTORCH_CUDA_ALLOC_CONF" else 2)
        monkeypatch.delenv(variable)


def test_rocm_keeps_fixed_ones(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    grow_segments()
    assert said == []


def test_a_gpu_without_pages_keeps_fixed_ones(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int, device: str) -> None:
        raise RuntimeError("CUDA driver error: operation not supported")

    monkeypatch.setattr(torch, "empty", fail)
    grow_segments()
    assert said == ["expandable_segments:True", "expandable_segments:False"]
