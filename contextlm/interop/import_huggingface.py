"""From a Hugging Face folder to a checkpoint of ours, with the proof that it is the same model.

One model is in memory at a time: theirs gives its logits and is gone before ours is filled from the mapped files.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contextlm.config.schema import Config, DataConfig
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError
from contextlm.inference.opened import built
from contextlm.interop import conversion_folder, parity
from contextlm.interop.huggingface_config import from_huggingface_config
from contextlm.interop.huggingface_weights import from_huggingface
from contextlm.interop.loaded_huggingface import CONFIG, check_shapes, load_model, package, read_config
from contextlm.interop.safetensors_folder import WeightFiles, find_weights
from contextlm.interop.tokenizer_files import folder_tokenizer
from contextlm.interop.weight_names import VOCABULARY

if TYPE_CHECKING:
    from megatron.core.transformer.module import MegatronModule

# Rows that a vocabulary may have beyond the tokenizer's ids: padding to a multiple of 128 for 8 tensor-parallel ranks.
_MAX_PADDING = 1024


def import_model(load: str, save: str, data: DataConfig, say: Callable[[str], None]) -> tuple[dict[str, Any], Config]:
    """Convert a GPT-2, GPT-NeoX or ContextLM folder; returns the certificate and the configuration that was saved.

    Args:
        load: the folder.
        save: the `--save` folder to make, with the weights as iteration 0.
        data: `--tokenizer-type`, `--tokenizer-model` and `--eod-token`; the folder's own tokenizer without a type.
        say: told each step.

    Raises:
        UserError: it cannot be read, written or verified; then there is no checkpoint.
    """
    folder, transformers = Path(load), package()
    content = read_config(folder)
    config = from_huggingface_config(content, str(folder / CONFIG))
    tokenizer = _tokenizer(folder, data)
    _check_vocabulary(folder, tokenizer, content["vocab_size"])
    conversion_folder.check_new(save)
    positions = config.model.num_positions
    weights = find_weights(folder)
    check_shapes(folder, weights)
    say(f"logits of {folder} by transformers {transformers.__version__}")
    expected = parity.logits_of_theirs(load_model(folder), tokenizer.vocab_size, positions)
    gc.collect()  # their model, before ours is made
    with conversion_folder.told(save), built(config, tokenizer.vocab_size) as (model, layout, device):
        from contextlm.checkpoints.weights_checkpoint import save_weights

        conversion_folder.check_room(save, 4 * sum(parameter.numel() for parameter in model.parameters()))
        say("filling our model")
        _fill(model, weights, content["model_type"], config, tokenizer.vocab_size)
        found = parity.logits_of_ours(model.to(device).eval(), tokenizer.vocab_size, positions)
        certificate = parity.certify(
            expected,
            found,
            source=folder.absolute().name,
            versions={"transformers": transformers.__version__, "torch": torch.__version__},
        )
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer_type=tokenizer.kind))
        written = save_weights(model, layout, config, tokenizer, Path(save), {"converted": certificate})
        say(f"saved checkpoint {written}")
    return certificate, config


def _tokenizer(folder: Path, data: DataConfig) -> Tokenizer:
    """The one that the flags name, else the folder's."""
    if data.tokenizer_type is not None:
        return build_tokenizer(data)
    return folder_tokenizer(folder, data.eod_token, "name a tokenizer with --tokenizer-type and --tokenizer-model")


def _check_vocabulary(folder: Path, tokenizer: Tokenizer, num_rows: int) -> None:
    """Every id needs a row, and rows without an id must be few enough to be padding."""
    if not num_rows - _MAX_PADDING < tokenizer.vocab_size <= num_rows:
        raise UserError(
            f"{folder}: the model has {num_rows} rows of vocabulary, the tokenizer {tokenizer.vocab_size} ids: it is "
            "another model's; give the right one with --tokenizer-type and --tokenizer-model"
        )


def _fill(model: MegatronModule, weights: WeightFiles, kind: str, config: Config, vocab_size: int) -> None:
    """Copy the weights tensor by tensor; rows of padding become 0."""
    parts = model.sharded_state_dict(metadata={"non_homogeneous_layers": True})
    ours = {part.key: part.data for part in parts.values()}
    for name, value in from_huggingface(kind, weights, config):
        target = ours.pop(name)
        rows = min(value.shape[0], vocab_size) if name in VOCABULARY else value.shape[0]
        target[rows:] = 0
        target[:rows] = value[:rows]
    assert not ours, sorted(ours)
