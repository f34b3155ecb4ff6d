"""Checks of the datasets, tokenizers, checkpoints and folders that a configuration names, before anything opens them.

Only the existence of files and the form of `--data-path`, its kin and `--split` are checked; what is inside is the
business of the rooms that read them.
"""

from __future__ import annotations

import os

from contextlm.config.blend import parse_blend, parse_split
from contextlm.config.schema import Config, DataConfig
from contextlm.config.split_data import own_paths
from contextlm.config.suggestions import nearest_name
from contextlm.config.tokenizer_checks import tokenizer_problems
from contextlm.errors import UserError


def data_problems(data: DataConfig, vocab_size: int | None = None) -> list[str]:
    """What is wrong with the datasets and the tokenizer that are given; `vocab_size` is --vocab-size."""
    paths = [("--data-path", data.data_path), *own_paths(data)]
    datasets = [problem for flag, words in paths for problem in _blend(flag, words)]
    return [*_split(data.document_split), *datasets, *_tokenizer(data, vocab_size)]


def checkpoint_problems(config: Config) -> list[str]:
    """What is wrong with the folders that a run starts from and saves to."""
    given, problems = config.checkpoint, []
    if given.load is not None and (config.training.skip_train or not given.resumes_itself):
        problems += _no_checkpoint(
            "--load",
            given.load,
            "check the path"
            if config.training.skip_train
            else "give the same folder as --save to resume where there is one and start fresh where not",
        )
    if given.finetune and given.load is None:
        problems.append("--finetune: takes the weights of a checkpoint, but none is given; add --load FOLDER")
    elif given.finetune and given.resumes_itself:
        problems.append(
            f"--finetune: starts anew from the weights of --load {given.load}, which --save would overwrite; "
            "save elsewhere, or drop --finetune to resume"
        )
    if given.init_backbone_from is not None:
        problems += _no_checkpoint("--init-backbone-from", given.init_backbone_from, "give a folder that --save made")
        if not config.context.enabled:
            problems.append(
                f"--init-backbone-from {given.init_backbone_from}: puts a new context head on a plain "
                "checkpoint, but "
                "--context-chunk-size is 0; use --context-chunk-size 4, or --load with --finetune for a "
                "plain model"
            )
        if given.finetune:
            problems.append("--finetune: --init-backbone-from already starts from weights only; keep one of the two")
    if given.load is None and given.init_backbone_from is None:
        problems += [
            f"{words}: nothing is loaded; add --load FOLDER, or drop it"
            for words, is_given in (
                ("--load-fallback", given.load_fallback),
                ("--no-verify-integrity", not given.verify_integrity),
            )
            if is_given
        ]
    if given.save_interval is not None and given.save is None:
        problems.append(f"--save-interval {given.save_interval}: nothing is saved without --save; add --save FOLDER")
    return problems


def folder_problems(config: Config) -> list[str]:
    """Folders to write to that cannot be made, because a file is in their place or in that of one above them."""
    folders = {
        "--save": config.checkpoint.save,
        "--output-dir": config.logging.output_dir,
        "--data-cache-path": config.data.data_cache_path,
        "--tensorboard-dir": config.logging.tensorboard_dir,
        "--wandb-save-dir": config.logging.wandb_save_dir,
    }
    return [problem for flag, folder in folders.items() if folder is not None for problem in _no_folder(flag, folder)]


def _no_folder(flag: str, folder: str) -> list[str]:
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.isdir(there):
        return []
    if there == os.path.abspath(folder):
        return [f"{flag} {folder}: is a file; give a folder"]
    return [f"{flag} {folder}: lies below {os.path.relpath(there)}, which is a file; give a folder"]


def _split(text: str) -> list[str]:
    try:
        parse_split(text)
    except UserError as error:
        return list(error.problems)
    return []


def _blend(flag: str, words: tuple[str, ...]) -> list[str]:
    if not words:
        return []
    try:
        blend = parse_blend(words, flag)
    except UserError as error:
        return list(error.problems)
    return [problem for _, prefix in blend for problem in _dataset(flag, prefix)]


def _dataset(flag: str, prefix: str) -> list[str]:
    missing = [suffix for suffix in (".bin", ".idx") if not os.path.isfile(prefix + suffix)]
    if not missing:
        return []
    stem, suffix = os.path.splitext(prefix)
    if suffix in (".bin", ".idx") and os.path.isfile(prefix):
        return [f"{flag} {prefix}: is a file; give the prefix, {stem}"]
    hint = "give a prefix that tools/preprocess_data.py made"
    if near := _nearest_prefix(prefix):
        hint = f"did you mean {near}?"
    return [f"{flag} {prefix}: {' and '.join(prefix + suffix for suffix in missing)} not found; {hint}"]


def _nearest_prefix(prefix: str) -> str | None:
    """The dataset in the same folder whose name is nearest."""
    folder, name = os.path.split(prefix)
    try:
        names = [entry.removesuffix(".idx") for entry in os.listdir(folder or ".") if entry.endswith(".idx")]
    except OSError:
        return None
    near = nearest_name(name, [other for other in names if other != name])
    return os.path.join(folder, near) if near else None


def _tokenizer(data: DataConfig, vocab_size: int | None) -> list[str]:
    if data.tokenizer_type is None:
        return _missing_files(data)
    return tokenizer_problems(data, vocab_size) or _missing_files(data)


def _missing_files(data: DataConfig) -> list[str]:
    given = {
        "--tokenizer-model": data.tokenizer_model,
        "--vocab-file": data.vocab_file,
        "--merge-file": data.merge_file,
    }
    return [
        f"{flag} {path}: not found; give an existing file"
        for flag, path in given.items()
        if path is not None and not os.path.exists(path)
    ]


def _no_checkpoint(flag: str, folder: str, remedy: str) -> list[str]:
    if not os.path.isdir(folder):
        return [f"{flag} {folder}: no such folder; {remedy}"]
    entries = os.listdir(folder)
    if "latest_checkpointed_iteration.txt" in entries or any(name.startswith("iter_") for name in entries):
        return []
    return [f"{flag} {folder}: holds no checkpoint; {remedy}"]
