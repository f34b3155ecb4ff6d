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
            monkeypatch.setattr(*home, found.append, raising=name == "today's torch")
        else:
            monkeypatch.delattr(*home, raising=name == "today's torch")
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    return found


def test_they_grow(said: list[str]) -> None:
    grow_segments()
    assert said == ["expandable_segments:True"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_environment_holds(said: list[str], monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "max_split_size_mb:512")
    grow_segments()
    assert said == []


def test_a_gpu_without_pages_keeps_fixed_ones(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int, device: str) -> None:
        raise RuntimeError("CUDA driver error: operation not supported")

    monkeypatch.setattr(torch, "empty", fail)
    grow_segments()
    assert said == ["expandable_segments:True", "expandable_segments:False"]
