"""Builds models in the test process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled in one test may serve another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
