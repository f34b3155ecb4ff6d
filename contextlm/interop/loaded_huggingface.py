"""Models of Hugging Face folders, opened by transformers, which is imported here and nowhere earlier."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from contextlm.errors import UserError
from contextlm.interop.huggingface_weights import is_weight, name_in_file
from contextlm.interop.safetensors_folder import WeightFiles

CONFIG = "config.json"


def package() -> ModuleType:
    """transformers, which knows our class from here on. Raises UserError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "converting needs transformers to prove that both models are one: pip install 'contextlm[hf]'"
        ) from None
    import contextlm.interop.huggingface  # noqa: F401

    return transformers


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json. Raises UserError where there is none."""
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--load {folder}: holds no {CONFIG}; give the folder of a Hugging Face model") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object; fetch it again")
    return content


def check_shapes(folder: Path, weights: WeightFiles) -> None:
    """Compare the tensors in the files with the model that config.json describes; none is read.

    Raises:
        UserError: each tensor that is missing, has no place or has another shape.
    """
    transformers, path = package(), folder / CONFIG
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise UserError(f"{path}: transformers cannot build this model: {error}") from None
    kind = config.model_type
    expected = {name_in_file(kind, name): tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name_in_file(kind, name): shape for name, shape in weights.shapes.items() if is_weight(name)}
    optional = {name_in_file(kind, "lm_head.weight")} if config.tie_word_embeddings else set()
    problems = [
        f"{name}: is missing, {path} expects {list(shape)}"
        for name, shape in expected.items()
        if name not in found and name not in optional
    ]
    problems += [
        f"{name}: is {list(shape)} in the files, but "
        + (f"{path} expects {list(expected[name])}" if name in expected else f"the model of {path} has no such weight")
        for name, shape in found.items()
        if shape != expected.get(name)
    ]
    if problems:
        raise UserError(*problems)


def load_model(folder: Path) -> torch.nn.Module:
    """The model of a folder, in fp32 on the CPU.

    Raises:
        UserError: transformers finds weights missing, left over or of another shape.
    """
    transformers = package()
    with _quiet(transformers):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    problems = [f"{folder}: {what}: {sorted(map(str, names))}" for what, names in info.items() if names]
    if problems:
        raise UserError(*problems)
    return model.eval()


@contextlib.contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Inside, transformers shows no bar of its own."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
