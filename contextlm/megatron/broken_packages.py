"""A Transformer Engine or apex that does not import is as good as none.

What is wrong: megatron-core looks for both with `except ImportError` (extensions/transformer_engine.py:61 and twenty
other files). One that was built for another torch or CUDA, or half removed, raises OSError, RuntimeError,
AssertionError or FileNotFoundError: then megatron-core does not import and no run starts, whatever
`--transformer-impl` says. And some files ask for `transformer_engine` alone, which imports without its half for torch.
The mend: before megatron-core looks, each is imported once; one that fails is marked as absent.
Test: tests/unit/megatron/test_broken_packages.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

_PACKAGES = {"transformer_engine": "transformer_engine.pytorch", "apex": "apex"}  # what must import of each


def hide() -> None:
    """Make the import of a broken package an ImportError; others, and absent ones, stay as they are."""
    for package, needed in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            continue
        try:
            importlib.import_module(needed)
        except Exception:  # whatever a broken package raises
            sys.modules[package] = None  # type: ignore[assignment]
