"""From a checkpoint of ours to a folder that transformers loads, with the proof that it is the same model.

One model is in memory at a time: ours gives its logits and its weights and is gone before theirs is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contextlm import atomic_files
from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE
from contextlm.config.schema import Config
from contextlm.config.yaml_file import load as load_config
from contextlm.inference.opened import Opened, opened
from contextlm.interop import conversion_folder, huggingface_model, parity
from contextlm.interop.huggingface_config import model_type, to_huggingface_config
from contextlm.interop.huggingface_weights import to_huggingface
from contextlm.interop.loaded_huggingface import CONFIG, load_model, package
from contextlm.interop.model_card import model_card
from contextlm.interop.safetensors_folder import write_weights
from contextlm.interop.tokenizer_files import write_tokenizer

Say = Callable[[str], None]
CERTIFICATE = "parity.json"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class _Written:
    """What is left of our model: its logits and its files."""

    checkpoint: Path
    config: Config
    facts: dict[str, Any]
    vocab_size: int
    logits: list[Tensor]
    files: list[Path]


def export(load: str, save: str, max_file_bytes: int, say: Say) -> dict[str, Any]:
    """Convert a checkpoint; returns the certificate.

    Args:
        load: a `--save` folder or one `iter_` folder of it, saved under any layout.
        save: the folder to make.
        max_file_bytes: of one file of weights.
        say: told each step.

    Raises:
        UserError: it cannot be read, written or verified; then there is no folder.
    """
    transformers = package()
    conversion_folder.check_new(save)
    with conversion_folder.told(save), atomic_files.folder(save) as folder:
        ours = _write(load, save, folder, max_file_bytes, say)
        say(f"comparing logits with transformers {transformers.__version__}")
        found = parity.logits_of_theirs(load_model(folder), ours.vocab_size, ours.config.model.num_positions)
        certificate = parity.certify(
            ours.logits,
            found,
            checkpoint=f"{ours.checkpoint.parent.name}/{ours.checkpoint.name}",
            versions={"transformers": transformers.__version__, "torch": torch.__version__},
            sha256={path.name: _sha256(path) for path in ours.files},
        )
        atomic_files.write_json(folder / CERTIFICATE, certificate)
        card = model_card(Path(save).name, model_type(ours.config), ours.config, ours.facts, certificate)
        atomic_files.write_bytes(folder / "README.md", card.encode())
    return certificate


def _write(load: str, save: str, folder: Path, max_file_bytes: int, say: Say) -> _Written:
    """Everything that our model is needed for."""
    with opened(load, in_fp32=True) as ours:
        say(f"opened {ours.folder}, iteration {ours.facts['iteration']}")
        # What was opened computes in fp32; the files keep the precision of the weights.
        config = load_config(ours.folder / CONFIG_FILE)
        config = dataclasses.replace(config, context=dataclasses.replace(config.context, context_control="none"))
        dtype, positions = _DTYPES[config.precision], config.model.num_positions
        vocab_size = ours.tokenizer.vocab_size
        num_bytes = sum(parameter.numel() for parameter in ours.model.parameters()) * dtype.itemsize
        conversion_folder.check_room(save, num_bytes)
        logits = parity.logits_of_ours(ours.model, vocab_size, positions)
        files = write_weights(folder, _weights(ours, config, dtype), num_bytes, max_file_bytes, say)
        content = to_huggingface_config(config, vocab_size, ours.tokenizer.eod)
        if (note := write_tokenizer(ours.tokenizer, folder, positions)) is not None:
            say(f"warning: {note}")
        _write_descriptions(folder, content)
        return _Written(ours.folder, config, ours.facts, vocab_size, logits, files)


def _weights(ours: Opened, config: Config, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the files, one by one."""
    parts = ours.model.sharded_state_dict(metadata={"non_homogeneous_layers": True})
    whole = {part.key: part.data for part in parts.values()}
    for name, value in to_huggingface(model_type(config), whole, config, ours.tokenizer.vocab_size):
        yield name, value.to("cpu", dtype)


def _write_descriptions(folder: Path, content: dict[str, Any]) -> None:
    """config.json, generation_config.json, and the code of our class if the model is one."""
    content["transformers_version"] = package().__version__
    atomic_files.write_json(folder / CONFIG, content)
    ends = {name: content[name] for name in ("bos_token_id", "eos_token_id") if content[name] is not None}
    atomic_files.write_json(folder / "generation_config.json", ends)
    if content["model_type"] == "contextlm":
        for path in sorted(Path(huggingface_model.__path__[0]).glob("*_contextlm.py")):
            shutil.copyfile(path, folder / path.name)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
