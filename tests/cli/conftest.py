"""Models to examine: random weights, the gate open, as checkpoints and as Hugging Face folders; and benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.programs import ROOT
from tests.distributed.conversion_cases import export, save_random
from tests.distributed.pool import Pool

KINDS = {
    "contextlm": ("gpt2", {}),
    "rotary": ("pythia", {"context_chunk_size": 3, "context_fusion": "norm_add"}),
    "apart": ("gpt2", {"reset_position_ids": True, "reset_attention_mask": True, "eod_mask_loss": True}),
    "plain": ("pythia", {"context_chunk_size": 0}),
}


@pytest.fixture(scope="session")
def model_folder(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Kind of model -> its `--save` folder, or the Hugging Face folder made of it; each is made once."""
    made: dict[tuple[str, bool], str] = {}

    def folder(kind: str, exported: bool = False) -> str:
        if (kind, exported) not in made:
            place = str(Path(tmp_path_factory.mktemp("examined")) / kind)
            if exported:
                (certificate,) = pool.run(export, 1, load=folder(kind), save=place)
                assert isinstance(certificate, dict), certificate
            else:
                backbone, values = KINDS[kind]
                pool.run(save_random, 1, folder=place, backbone=backbone, values=values)
            made[kind, exported] = place
        return made[kind, exported]

    return folder


@pytest.fixture
def load_benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of benchmarks/, whose files know each other by their own names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load
