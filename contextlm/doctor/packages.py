"""Versions: what a run needs, what it may use, and packages that are not what their name says."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from contextlm.doctor.finding import PROBLEM, WARNING, Finding

NEEDED = ("torch", "megatron-core", "numpy", "pyyaml", "sentencepiece", "tokenizers", "safetensors", "psutil", "rich")
OPTIONAL = {
    "transformers": "conversion to and from Hugging Face",
    "gigatoken": "faster tokenizing",
    "tiktoken": "TikTokenizer",
    "orjson": "faster .jsonl",
    "pyarrow": ".parquet",
    "zstandard": ".zst",
    "datasets": "datasets of the Hub",
    "ray": "preprocessing on many hosts",
    "lm-eval": "tasks",
    "tensorboard": "--tensorboard-dir",
    "wandb": "--wandb-project",
    "mlflow": "--mlflow-experiment",
}


def packages() -> Iterator[Finding]:
    """The interpreter and all packages; nothing heavy is imported."""
    yield Finding("packages", "python", f"{platform.python_version()} on {platform.platform()}")
    for name in NEEDED:
        version = _version(name)
        if version is None:
            yield Finding("packages", name, "is not installed", PROBLEM, f"install it: pip install {name}")
        else:
            yield Finding("packages", name, version)
    absent = []
    for name, purpose in OPTIONAL.items():
        if (version := _version(name)) is not None:
            yield Finding("packages", name, f"{version} ({purpose})")
        else:
            absent.append(f"{name} ({purpose})")
    if absent:
        yield Finding("packages", "not installed", f"and not needed without their purpose: {', '.join(absent)}")
    yield _apex()
    yield _transformer_engine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _apex() -> Finding:
    """NVIDIA's apex has optimizers; PyPI's package of that name is a toolkit for web pages."""
    found = importlib.util.find_spec("apex")
    if found is None:
        return Finding("packages", "apex", "is not installed, and not needed")
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    place = found.origin or ", ".join(map(str, folders))
    if not any((folder / "optimizers").is_dir() for folder in folders):
        return Finding(
            "packages",
            "apex",
            f"{place} is not NVIDIA's but another package of that name",
            PROBLEM,
            "remove it: pip uninstall apex; nothing here needs apex",
        )
    if error := _import_error("apex.optimizers"):
        return Finding(
            "packages", "apex", f"does not import: {error}", WARNING, "remove it, or build it for this torch"
        )
    return Finding("packages", "apex", f"{_version('apex') or 'some version'}: its fused Adam is used")


def _transformer_engine() -> Finding:
    name = "transformer-engine"
    if importlib.util.find_spec("transformer_engine") is None:
        return Finding("packages", name, "is not installed, and not needed")
    if error := _import_error("transformer_engine.pytorch"):
        remedy = "remove it, or install the one that was built for this torch and CUDA"
        return Finding("packages", name, f"does not import: {error}", WARNING, remedy)
    return Finding("packages", name, f"{_version('transformer-engine') or 'some version'} imports")


def _import_error(module: str) -> str | None:
    """Why a module does not import; None if it does."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None
