"""Subjects that are models of transformers: a folder's, or the twin of a checkpoint of ours.

The twin decodes with a cache, which the trainer's model has not. transformers is imported here and nowhere earlier.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from contextlm.errors import UserError
from contextlm.inference.opened import Opened
from contextlm.inference.subject import Subject, from_checkpoint
from contextlm.interop.huggingface_config import from_huggingface_config, model_type, to_huggingface_config
from contextlm.interop.huggingface_weights import to_huggingface
from contextlm.interop.loaded_huggingface import CONFIG, check_shapes, load_model, package, read_config
from contextlm.interop.safetensors_folder import find_weights
from contextlm.interop.tokenizer_files import folder_tokenizer

_NOT_OF_A_CONFIG = {"architectures", "model_type", "auto_map", "dtype"}


def huggingface_subject(folder: Path, in_fp32: bool) -> Subject:
    """The model of a Hugging Face folder; on a GPU in the precision of its weights unless `in_fp32`.

    Raises:
        UserError: the folder is incomplete, of another architecture, or has no tokenizer of its own.
    """
    content = read_config(folder)
    config = from_huggingface_config(content, str(folder / CONFIG))
    tokenizer = folder_tokenizer(folder, None, "copy the model's into it")
    if tokenizer.vocab_size > content["vocab_size"]:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model {content['vocab_size']} rows of "
            "vocabulary: they do not belong together; restore the tokenizer"
        )
    check_shapes(folder, find_weights(folder))
    model = load_model(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored = content.get("dtype") or content.get("torch_dtype") or "float32"
    if device.type == "cuda" and not in_fp32:
        model = model.to({"bfloat16": torch.bfloat16, "float16": torch.float16}.get(stored, torch.float32))
    facts = {"format": "huggingface", "model": content["model_type"]}
    positions, chunk_size = config.model.num_positions, config.context.context_chunk_size
    return Subject(folder, facts, tokenizer, model.to(device), None, None, device, positions, chunk_size)


def foreign_code(examined: Subject) -> Subject:
    """The same folder through the code that it carries, which runs: for those who trust it.

    Raises:
        UserError: it carries none, or that fails.
    """
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    folder = examined.folder
    reference = read_config(folder).get("auto_map", {}).get("AutoModelForCausalLM")
    if reference is None:
        raise UserError(f"--trust-remote-code: {folder} carries no code of its own; leave it out")
    try:
        model_class: Any = get_class_from_dynamic_module(reference, str(folder), local_files_only=True)
        model = model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # whatever that code does
        raise UserError(f"--trust-remote-code: the code of {folder} fails: {error!r}") from error
    return dataclasses.replace(examined, model=model.eval())


def twin(ours: Opened) -> Subject:
    """The same model as one of transformers, with copies of the weights: it outlives what was opened."""
    transformers = package()
    kind, vocab_size = model_type(ours.config), ours.tokenizer.vocab_size
    content = to_huggingface_config(ours.config, vocab_size, ours.tokenizer.eod)
    config = transformers.AutoConfig.for_model(kind, **{key: content[key] for key in content.keys() - _NOT_OF_A_CONFIG})
    parts = ours.model.sharded_state_dict(metadata={"non_homogeneous_layers": True})
    whole = {part.key: part.data for part in parts.values()}
    weights = {name: value.clone() for name, value in to_huggingface(kind, whole, ours.config, vocab_size)}
    if not ours.config.model.untie_embeddings_and_output_weights:
        weights["lm_head.weight"] = ours.model.shared_embedding_or_output_weight()[:vocab_size].clone()
    model_class = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    dtype = next(ours.model.parameters()).dtype
    transformers.utils.logging.disable_progress_bar()  # nothing is read from a disk: there is nothing to wait for
    model = model_class.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    return dataclasses.replace(from_checkpoint(ours), model=model.to(ours.device).eval(), trainer=None)
