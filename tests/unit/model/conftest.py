"""Builds models in the test process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from contextlm.config.schema import Config
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE


@pytest.fixture
def build(layout) -> Callable[..., torch.nn.Module]:
    """Configuration -> model in evaluation mode, all its weights random unless `fresh`."""
    from contextlm.model.builder import build_model

    def build(config: Config, fresh: bool = False) -> torch.nn.Module:
        (model,) = build_model(config, VOCAB_SIZE, layout.groups)
        if not fresh:
            randomize(model)
        return model.eval()

    return build


@pytest.fixture
def compile_with(fresh_compiler, monkeypatch) -> Callable[[Any], None]:
    """Has `compile_parts` use a backend."""

    def use(backend: Any) -> None:
        compiler = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **how: compiler(function, backend=backend, **how))
        monkeypatch.setattr(
            torch.nn.Module,
            "compile",
            lambda module, **how: setattr(module, "forward", torch.compile(module.forward, **how)),
        )

    return use


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled in one test may serve another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
