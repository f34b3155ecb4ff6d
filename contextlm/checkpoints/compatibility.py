"""Whether a checkpoint fits the model that is to load it, known before any tensor is read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, read_run
from contextlm.config.option_changes import OF_THE_WEIGHTS
from contextlm.config.schema import Config
from contextlm.config.yaml_file import load as load_config
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError


def check(
    folder: Path, config: Config, tokenizer: Tokenizer, *, backbone_only: bool = False, with_optimizer: bool = False
) -> None:
    """Compare a checkpoint's model with the one of this run.

    Args:
        folder: the checkpoint.
        config: this run's configuration.
        tokenizer: of this run.
        backbone_only: a plain model is to be loaded under a new context head.
        with_optimizer: the optimizer's state is to be loaded too.

    Raises:
        UserError: every field in which they differ, with both values.
    """
    if found := problems(folder, config, tokenizer, backbone_only=backbone_only, with_optimizer=with_optimizer):
        raise UserError(*found)


def problems(
    folder: Path, config: Config, tokenizer: Tokenizer, *, backbone_only: bool = False, with_optimizer: bool = False
) -> list[str]:
    """What `check` raises."""
    saved = load_config(folder / CONFIG_FILE)
    found = []
    if backbone_only and saved.context.enabled:
        found.append(f"--init-backbone-from {folder}: already has a context head; use --load with --finetune")
    if with_optimizer and saved.half_precision != config.half_precision:
        found.append(
            f"--load: checkpoint {folder} was trained in {saved.precision}, this run is in {config.precision}; only "
            "16-bit training has fp32 master weights: continue in its precision, or begin from its weights with "
            "--finetune"
        )
    run = read_run(folder)
    if with_optimizer and run.get("weights_only"):
        found.append(
            f"--load: checkpoint {folder} holds weights alone, there is no run to continue; begin from them with "
            "--finetune"
        )
    if run["tokenizer_fingerprint"] != tokenizer.fingerprint:
        found.append(
            f"--tokenizer-model: checkpoint {folder} was trained with another tokenizer; its own is kept in that folder"
        )
    found += [
        f"--{name.replace('_', '-')} {ours}: checkpoint {folder} has {theirs}; "
        "its weights mean nothing to another model: use the same value or another checkpoint"
        for name, (theirs, ours) in differences(saved, config, backbone_only).items()
    ]
    return found


def differences(saved: Config, config: Config, backbone_only: bool = False) -> dict[str, tuple[object, object]]:
    """Options that decide what weights mean and are not the checkpoint's: its value, ours."""
    theirs, ours = _facts(saved, backbone_only), _facts(config, backbone_only)
    return {name: (theirs[name], ours[name]) for name in ours if name in theirs and theirs[name] != ours[name]}


def _facts(config: Config, backbone_only: bool) -> dict[str, object]:
    """What must be equal for the weights of one to mean the same in the other."""
    facts = {name: value for name, value in asdict(config.model).items() if name in OF_THE_WEIGHTS}
    facts["ffn_hidden_size"] = config.model.ffn_size
    del facts["max_position_embeddings"]
    if config.model.position_embedding_type == "learned_absolute":
        facts["max_position_embeddings"] = config.model.num_positions
    if backbone_only:
        return facts
    facts["context_chunk_size"] = config.context.context_chunk_size
    if config.context.enabled:
        facts |= {name: value for name, value in asdict(config.context).items() if name in OF_THE_WEIGHTS}
        facts["context_encoder_layers"] = config.encoder_layers
    return facts
