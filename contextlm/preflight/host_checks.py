"""What can be known before the ranks meet: lock, device, tokenizer, data, changed options, folders, room on the disk.

Every rank looks at what all read, and finds the same; what belongs to a host is looked at by the first of its ranks.
Everything is collected before anything is raised.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from contextlm.byte_words import size
from contextlm.checkpoints import checkpoint_folder, continuation, manifest
from contextlm.checkpoints.selection import choose
from contextlm.config.blend import parse_blend
from contextlm.config.schema import Config
from contextlm.config.split_data import split_data
from contextlm.config.yaml_file import load as load_config
from contextlm.data.datasets import Datasets, build_datasets
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError, tell_warnings
from contextlm.megatron.kernel_compiler import compiler_problems
from contextlm.preflight import disk
from contextlm.preflight.folders import write_error
from contextlm.preflight.products import fp8_device_problems, graph_problems
from contextlm.training import whereabouts
from contextlm.training.whereabouts import Whereabouts

T = TypeVar("T")


class Passed(NamedTuple):
    """What a run begins with.

    Attributes:
        first_sample: the first that it trains on; a continued run has consumed those before.
        words: what was found, for the line of the summary.
    """

    tokenizer: Tokenizer
    datasets: Datasets
    first_sample: int
    words: tuple[str, ...]


def check(config: Config, where: Whereabouts, refusals: Sequence[str] = ()) -> Passed:
    """Open the tokenizer and the data, and look at all that may end the run.

    Args:
        where: is told what is being opened.
        refusals: why the lock of `--save` was not to be had, if it was not.

    Raises:
        UserError: every problem.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    problems = [*refusals, *compiler_problems(), *graph_problems(config), *fp8_device_problems(config)]
    trains = not config.training.skip_train
    where.at(whereabouts.OPENING_TOKENIZER)
    tokenizer = _collected(problems, lambda: build_tokenizer(config.data, config.model.vocab_size))
    where.at(whereabouts.OPENING_DATA)
    datasets = _collected(problems, lambda: build_datasets(config, tokenizer, world_size))
    if datasets is not None and datasets.train is None and trains:
        problems.append(
            f"--split {config.data.document_split}: leaves nothing for training; give the first share more than 0"
        )
    folder, run = continued(config)
    if folder is not None and tokenizer is not None and datasets is not None:
        problems += _changed_options(folder, config, world_size, tokenizer, datasets)
    words = [_data_words(config)]
    if os.environ.get("LOCAL_RANK", "0") == "0":
        problems += _folders(config, save_is_refused=bool(refusals))
        if tokenizer is not None and trains and not refusals:
            words += _room(config, tokenizer, world_size, run.get("iteration", 0), problems)
    if problems:
        raise UserError(*problems)
    assert tokenizer is not None and datasets is not None
    return Passed(tokenizer, datasets, run.get("consumed_samples", 0), tuple(words))


def _collected(problems: list[str], make: Callable[[], T]) -> T | None:
    """What is made; its problems join the others."""
    try:
        return make()
    except UserError as error:
        problems += error.problems
        return None


def continued(config: Config) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint that is continued, and its `run.json`; none of one that is damaged: who loads it tells that."""
    given = config.checkpoint
    source = given.save if given.finetune or given.init_backbone_from is not None else given.load
    if source is None or config.training.skip_train:
        return None, {}
    try:
        # All of its files are looked at later, by all ranks together.
        found = checkpoint_folder.candidates(source)
        folder = choose(found, lambda line: None, damage=manifest.incomplete, may_fall_back=given.load_fallback)
        if folder is None:
            return None, {}
        load_config(folder / checkpoint_folder.CONFIG_FILE)
        return folder, checkpoint_folder.read_run(folder)
    except UserError:
        return None, {}


def _changed_options(
    folder: Path, config: Config, world_size: int, tokenizer: Tokenizer, datasets: Datasets
) -> list[str]:
    """Why the checkpoint cannot be continued so, after the changed options were shown; else loading shows them."""
    said: list[str] = []
    try:
        continuation.check(folder, config, world_size, tokenizer, datasets, said.append)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(*said, sep="\n", flush=True)
        return list(error.problems)
    return []


def _folders(config: Config, save_is_refused: bool) -> list[str]:
    """Folders to write to that cannot be; `--save` is tried unless it is another job's."""
    logging = config.logging
    folders = {
        "--save": None if save_is_refused or config.training.skip_train else config.checkpoint.save,
        "--output-dir": logging.output_dir,
        "--tensorboard-dir": logging.tensorboard_dir,
        "--wandb-save-dir": logging.wandb_save_dir,
    }
    host = socket.gethostname()
    cache = config.data.data_cache_path
    if cache is not None and (error := write_error(cache)):  # what it holds is still of use
        tell_warnings([f"--data-cache-path {cache}: not writable on {host} ({error}): what it lacks stays in memory"])
    return [
        f"{flag} {folder}: cannot be written to on {host}: {error}; give a folder that can"
        for flag, folder in folders.items()
        if folder is not None and (error := write_error(folder))
    ]


def _room(config: Config, tokenizer: Tokenizer, world_size: int, iteration: int, problems: list[str]) -> Sequence[str]:
    """Words about the disk; what is wrong with it joins the problems."""
    save, found = config.checkpoint.save, disk.room(config, tokenizer.vocab_size, world_size, iteration)
    if save is None or found is None:
        return []
    problems += disk.problems(found, save)
    tell_warnings(disk.warnings(found, save))
    return [f"disk {size(found.free)} free for {found.planned} x {size(found.each)}"]


def _data_words(config: Config) -> str:
    """How many datasets there are, and how large."""
    words = {split.flag: split.words for split in split_data(config.data).values()}
    prefixes = {prefix for flag, each in words.items() for _, prefix in parse_blend(each, flag)}
    files = [Path(f"{prefix}.bin") for prefix in prefixes]
    total = sum(file.stat().st_size for file in files if file.exists())
    return f"data {len(files)} file{'' if len(files) == 1 else 's'} {size(total)}"
