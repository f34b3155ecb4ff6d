"""Runs one iteration of a finished or failed run again, from the checkpoint before it, and compares what it yields.

In its own layout on a CPU a run repeats itself bit for bit. So an iteration that does not reproduce was disturbed from
outside, a bad chip or a flipped bit, and one that does has its cause in the data, the weights or the options.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contextlm.checkpoints import checkpoint_folder
from contextlm.config import validate
from contextlm.config.schema import CheckpointConfig, Config, LoggingConfig
from contextlm.config.yaml_file import load as load_config
from contextlm.data.datasets import build_datasets
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError
from contextlm.parallel import runtime

if TYPE_CHECKING:
    from contextlm.training.setup import Run


class SampleLoss(NamedTuple):
    """The loss of one sample, and where it was computed."""

    sample: int
    data_rank: int
    micro_batch: int
    lm_loss: float


@dataclass(frozen=True)
class Replayed:
    """What was recorded of an iteration, and what it yields now; NaN where it is no number.

    Attributes:
        same_layout: whether it ran as the checkpoint was made; None where the replay began without a checkpoint.
    """

    start: str
    same_layout: bool | None
    recorded: dict[str, Any]
    found: dict[str, Any]
    samples: list[SampleLoss]

    @property
    def is_equal(self) -> bool:
        """Whether loss, gradient norm and what was skipped are the same, bit for bit."""
        return self.recorded == self.found

    def difference(self, name: str) -> float:
        """By how much a number differs, as a share of what was recorded; infinite where one of the two is none."""
        before, after = self.recorded[name], self.found[name]
        if before == after:
            return 0.0
        return math.inf if None in (before, after) else abs(after - before) / max(abs(before), 1e-30)


def replay(folder: Path, iteration: int, say: Callable[[str], None]) -> Replayed:
    """Run an iteration again under the ranks that are there; every rank must call it.

    Args:
        folder: the run's `--save` folder.
        iteration: its number.
        say: told where the replay begins.

    Raises:
        UserError: nothing is recorded of it, or it cannot be reached from what was saved.
    """
    start, config = _checkpoint_before(folder, iteration), _config(folder, iteration)
    if start is None and _began_elsewhere(config):
        raise UserError(
            f"--iteration {iteration}: no checkpoint of {folder} is before it, and the run began from another's; "
            "give a later iteration"
        )
    lines = _recorded(folder, config, iteration)
    first = 0 if start is None else checkpoint_folder.read_run(start)["iteration"]
    between = [n for n, line in lines.items() if first < n < iteration and line.get("skipped")]
    if missing := sorted(set(range(first + 1, iteration + 1)) - lines.keys()):
        raise UserError(f"metrics.jsonl of {folder}: has no line of iteration {missing[0]}; give one that it has")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    _check_processes(config, start, world_size)
    config = _replayable(config, start, between, world_size)
    tokenizer = build_tokenizer(config.data, config.model.vocab_size)
    datasets = build_datasets(config, tokenizer, world_size)
    with runtime.start(config.parallel) as process:
        # megatron-core looks at the device when it is imported.
        from contextlm.parallel.layout import model_parallel

        with model_parallel(config.parallel) as layout:
            from contextlm.checkpoints import loading
            from contextlm.training.setup import setup

            run = setup(config, process, layout, tokenizer, datasets)
            loading.load(run, say)
            same_layout = None if start is None else _is_laid_out_as(run, checkpoint_folder.read_run(start))
            found, samples = _run_to(run, iteration)
    return Replayed(
        "a fresh start" if start is None else str(start), same_layout, _told(lines[iteration]), found, samples
    )


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Those of a run with their iterations, the oldest first."""
    found = [path for path in folder.glob("iter_*") if path.suffix == "" and path.name[5:].isdigit()]
    return sorted((int(path.name[5:]), path) for path in found)


def _checkpoint_before(folder: Path, iteration: int) -> Path | None:
    """The newest checkpoint that is older than the iteration."""
    return next((path for number, path in reversed(_checkpoints(folder)) if number < iteration), None)


def _config(folder: Path, iteration: int) -> Config:
    """The options under which the iteration was run: those of the next checkpoint, else those of the last start."""
    after = next((path for number, path in _checkpoints(folder) if number >= iteration), folder)
    if not (after / checkpoint_folder.CONFIG_FILE).exists():
        raise UserError(f"--load {folder}: holds no {checkpoint_folder.CONFIG_FILE}; give a folder that --save made")
    return load_config(after / checkpoint_folder.CONFIG_FILE)


def _began_elsewhere(config: Config) -> bool:
    given = config.checkpoint
    return given.finetune or given.init_backbone_from is not None or not (given.load is None or given.resumes_itself)


def _check_processes(config: Config, start: Path | None, world_size: int) -> None:
    """Refuse a number of processes for which the run's layout has no place."""
    needed = config.parallel.model_parallel_size
    if world_size % needed:
        before = needed if start is None else checkpoint_folder.read_run(start)["world_size"]
        raise UserError(
            f"{world_size} process(es): a copy of the model takes {needed}; run it with {before} processes, as the run "
            f"was: torchrun --nproc-per-node {before} tools/replay_step.py"
        )


def _replayable(config: Config, start: Path | None, skipped: list[int], world_size: int) -> Config:
    """The run's configuration, saving and telling nothing, that skips again what was skipped on the way."""
    told = dict.fromkeys((*config.training.iterations_to_skip, *map(str, skipped)))
    config = replace(
        config,
        checkpoint=CheckpointConfig(),
        logging=LoggingConfig(),
        training=replace(config.training, on_nan="skip", iterations_to_skip=tuple(told)),
    )
    if problems := validate(config, world_size):
        raise UserError(*problems)
    return replace(config, checkpoint=CheckpointConfig(load=None if start is None else str(start)))


def _recorded(folder: Path, config: Config, iteration: int) -> dict[int, dict[str, Any]]:
    """The training lines of metrics.jsonl up to the iteration, by iteration."""
    places = [Path(place, "metrics.jsonl") for place in (folder, config.output_dir) if place is not None]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise UserError(f"--load {folder}: no metrics.jsonl there, with which to compare; put the run's own into it")
    lines = [_parsed(line) for line in path.read_text().splitlines()]
    training = [line for line in lines if "iteration" in line and "split" not in line]
    return {line["iteration"]: line for line in training if line["iteration"] <= iteration}


def _parsed(line: str) -> dict[str, Any]:
    """A line of metrics.jsonl; empty where a killed run wrote half of it."""
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return {}


def _told(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in ("lm_loss", "grad_norm", "skipped")}


def _is_laid_out_as(run: Run, saved: dict[str, Any]) -> bool:
    return saved["layout"] == run.layout_words and saved["device"] == run.runtime.device.type


def _run_to(run: Run, iteration: int) -> tuple[dict[str, Any], list[SampleLoss]]:
    """Train up to the iteration; what it yields, and the loss of each of its samples, the same on every rank."""
    import torch

    from contextlm.training.sample_sums import SampleSums
    from contextlm.training.skipping import Why
    from contextlm.training.step import train_step

    progress = run.progress
    batches = run.micro_batches(run.datasets.train, progress.consumed_samples, run.num_microbatches_at)
    while True:
        first = progress.consumed_samples
        result = train_step(run, batches, SampleSums(samples=run.config.training.micro_batch_size))
        progress.iteration += 1
        progress.consumed_samples += result.num_samples
        if progress.iteration == iteration:
            break
    if batches is not None:
        batches.close()
    own = []
    if run.layout.is_last_stage and run.layout.tensor_rank == 0:
        size = run.config.training.micro_batch_size
        for number, losses in enumerate(SampleSums.losses(result.own_sums, size).tolist()):
            start = first + number * run.samples_of_a_pass + run.layout.data_rank * size
            own += [SampleLoss(start + i, run.layout.data_rank, number, loss) for i, loss in enumerate(losses)]
    why = Why(int(result.skipped))
    loss, norm = result.loss.item(), math.nan if result.grad_norm is None else result.grad_norm.item()
    numbers = {name: x if math.isfinite(x) else None for name, x in (("lm_loss", loss), ("grad_norm", norm))}
    mine = numbers | {"skipped": None if why is Why.UPDATED else why.word}, own
    everyones: list[Any] = [None] * run.runtime.world_size
    torch.distributed.all_gather_object(everyones, mine)
    return everyones[-1][0], sorted(entry for _, entries in everyones for entry in entries)
