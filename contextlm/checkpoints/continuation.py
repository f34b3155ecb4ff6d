"""What a continued run does otherwise than the checkpoint's: told, or refused where nobody asked for it.

Which options are safe, change the data order or are fatal: `config/option_changes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from contextlm.checkpoints import compatibility
from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, read_run
from contextlm.config.batch_ramp import batch_size_at, with_batch_size
from contextlm.config.fields import sections, typed
from contextlm.config.option_changes import (
    ALLOWABLE,
    DATA_ORDER,
    FATAL,
    OF_THE_DATA,
    OF_THE_START,
    OF_THE_TOKENIZER,
    OF_THE_WEIGHTS,
    SAFE,
)
from contextlm.config.resume_checks import allowed_names
from contextlm.config.schedule_lengths import schedule_lengths
from contextlm.config.schema import Config
from contextlm.config.yaml_file import load
from contextlm.data.datasets import Datasets
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError


class Change(NamedTuple):
    """An option that is not the checkpoint's.

    Attributes:
        kind: SAFE, DATA_ORDER or FATAL.
        name: of the field.
        before, after: the checkpoint's value and ours.
    """

    kind: str
    name: str
    before: Any
    after: Any

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")

    def __str__(self) -> str:
        return f"{self.flag} {typed(self.before)} -> {typed(self.after)}"


def check(
    folder: Path,
    config: Config,
    world_size: int,
    tokenizer: Tokenizer,
    datasets: Datasets,
    say: Callable[[str], None],
) -> None:
    """Show what a run that continues a checkpoint does otherwise, before any tensor is read.

    Args:
        folder: the checkpoint.
        config: of the run that continues.
        world_size: its number of processes.
        tokenizer, datasets: of that run.
        say: tells the user one line.

    Raises:
        UserError: everything that forbids it.
    """
    trains = datasets.train is not None
    found = changes(
        folder,
        config,
        world_size,
        data_fingerprint=datasets.fingerprint if trains else None,
        tokenizer_fingerprint=tokenizer.fingerprint,
    )
    for line in _block(folder, found, allowed_names(config.checkpoint)):
        say(line)
    problems = [
        *compatibility.problems(folder, config, tokenizer, with_optimizer=True),
        *_refused(folder, found, config),
        *_batch_size(config, world_size, read_run(folder)),
    ]
    if problems:
        raise UserError(*problems)


def changes(
    folder: Path, config: Config, world_size: int, *, data_fingerprint: str | None, tokenizer_fingerprint: str
) -> list[Change]:
    """Options that are not the checkpoint's, the gravest first.

    Args:
        folder: the checkpoint.
        config: of the run that continues.
        world_size: its number of processes.
        data_fingerprint: of its training data; None without training.
        tokenizer_fingerprint: of its tokenizer.
    """
    run = read_run(folder)
    theirs = with_batch_size(load(folder / CONFIG_FILE), run["world_size"])
    ours = with_batch_size(config, world_size)
    same_data = data_fingerprint in (None, run["data_fingerprint"])
    same_tokenizer = tokenizer_fingerprint == run["tokenizer_fingerprint"]
    before, after = _options(theirs), _options(ours)
    of_the_weights = compatibility.differences(theirs, ours)
    found = [Change(FATAL, name, *values) for name, values in of_the_weights.items()]
    for name, value in after.items():
        if name in OF_THE_WEIGHTS or name in OF_THE_START or before[name] == value:
            continue
        is_fatal = name in ALLOWABLE or (name in OF_THE_TOKENIZER and not same_tokenizer)
        orders = name in OF_THE_DATA and not same_data
        found.append(Change(FATAL if is_fatal else DATA_ORDER if orders else SAFE, name, before[name], value))
    if not same_data and all(change.kind != DATA_ORDER for change in found):
        name = "train_data_path" if config.data.per_split else "data_path"
        found.append(Change(DATA_ORDER, name, "the checkpoint's files", "others under the same name"))
    if not same_tokenizer and all(change.name not in OF_THE_TOKENIZER for change in found):
        found.append(Change(FATAL, "tokenizer_model", "the checkpoint's", "another under the same name"))
    return sorted(found, key=lambda change: ((FATAL, DATA_ORDER, SAFE).index(change.kind), change.name))


def _block(folder: Path, found: Sequence[Change], allowed: Collection[str]) -> list[str]:
    """The lines that show changed options; none where nothing has changed."""
    if not found:
        return []
    kinds = [f"{change.kind}, but allowed" if change.name in allowed else change.kind for change in found]
    width = max(map(len, kinds))
    return [
        f"options that are not those of checkpoint {folder}:",
        *(f"  {kind:<{width}}  {change}" for kind, change in zip(kinds, found, strict=True)),
    ]


def _refused(folder: Path, found: Sequence[Change], config: Config) -> list[str]:
    """One sentence for each change that needs leave and has none."""
    allowed = allowed_names(config.checkpoint)
    # What no leave is given for, another width of the weights among it, has sentences of its own (compatibility.py).
    kept = set() if load(folder / CONFIG_FILE).half_precision == config.half_precision else {"bf16", "fp16"}
    return [
        f"{change.flag} {typed(change.after)}: checkpoint {folder} has {typed(change.before)}, and "
        f"{ALLOWABLE[change.name]}; use that, or go on with --allow-changed-options {change.flag[2:]}"
        for change in found
        if change.name in ALLOWABLE and change.name not in allowed | kept
    ]


def _batch_size(config: Config, world_size: int, saved: dict[str, Any]) -> list[str]:
    """A batch size that follows from the number of processes must not change by itself with that number.

    Another one that is given is a choice. `saved` is the checkpoint's `run.json`.
    """
    before, after = saved["global_batch_size"], batch_size_at(config, world_size, saved["consumed_samples"])
    if config.training.global_batch_size is not None or before == after:
        return []
    return [
        f"--global-batch-size: not given, and {after} follows from {world_size} process(es), but the checkpoint's "
        f"run had {before}; give --global-batch-size {before} to go on with it, or {after} to change it"
    ]


def _options(config: Config) -> dict[str, object]:
    """Every option by name; how long the decay is, resolved."""
    every = {name: value for section in sections() for name, value in asdict(getattr(config, section)).items()}
    decay = "lr_decay_iters" if config.training.train_samples is None else "lr_decay_samples"
    return every | {decay: schedule_lengths(config).decay}
