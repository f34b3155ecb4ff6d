"""python benchmarks/checkpoints.py

How long a checkpoint stalls training, waited for and in the background (--async-save), and how long it takes, beside
writing as many bytes with torch.save and as plain bytes in the same run. All are synced to the disk. Ours copy, write
and hash, in turns with the others; while a save is under way in the background the run goes on training.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from contextlm.config.schema import Config
from contextlm.parallel import runtime
from table import machine, table
from trainers import SIZES, our_run, write_tokens

BYTES, TORCH, SYNC, ASYNC = "plain bytes", "torch.save", "save, waited for", "save in the background"


class Times(NamedTuple):
    """Of one save: seconds that training stands still, and until the checkpoint is in force; iterations meanwhile."""

    stall: float
    whole: float
    iterations: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="What a checkpoint costs.", allow_abbrev=False, epilog=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are printed [3]")
    parser.add_argument("--folder", help="where to write; it must be on the disk that is measured [a temporary one]")
    parser.add_argument("--plain-optimizer", action="store_true", help="instead of the distributed one")
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it runs")
    options = parser.parse_args(arguments)
    size = replace(SIZES["quick" if options.quick else "124m"], micro_batch_size=1, num_microbatches=1)
    print(f"{size}; {'plain' if options.plain_optimizer else 'distributed'} optimizer, fp32; {machine()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_tokens(Path(folder, "random"), size)
        config = size.config(0, Path(folder, "random"))
        config = replace(
            config, parallel=replace(config.parallel, use_distributed_optimizer=not options.plain_optimizer)
        )
        with started(config, size) as run:
            tensors = equal_tensors(run)
            num_bytes = sum(tensor.nbytes for tensor in tensors)
            found: dict[str, list[Times]] = {BYTES: [], TORCH: [], SYNC: [], ASYNC: []}
            for number in range(options.rounds):
                place = Path(folder, str(number))
                place.mkdir()
                found[BYTES].append(timed(write_bytes, tensors, place / "bytes"))
                found[TORCH].append(timed(write_tensors, tensors, place / "tensors"))
                found[SYNC].append(timed(saved, run, place / "sync"))
                found[ASYNC].append(saved_in_background(run, place / "async"))
            print(table(("way", "stall (s)", "in all (s)", "MB/s", "iterations meanwhile"), rows(found, num_bytes)))
            print(f"\n{num_bytes / 1e9:.2f} GB of weights and Adam's moments")


def rows(found: dict[str, list[Times]], num_bytes: int) -> list[list[str]]:
    """The medians over the rounds."""
    lines = []
    for name, rounds in found.items():
        stall, whole, iterations = (statistics.median(column) for column in zip(*rounds, strict=True))
        lines.append([name, f"{stall:.2f}", f"{whole:.2f}", f"{num_bytes / whole / 1e6:.0f}", f"{iterations:.0f}"])
    return lines


@contextlib.contextmanager
def started(config: Config, size: Any) -> Iterator[Any]:
    """A run after its first iteration: the optimizer has its moments."""
    with runtime.start(config.parallel) as process:
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        with model_parallel(config.parallel) as layout:
            run = our_run(config, process, layout, size)
            step = stepping(run)
            step()
            yield run


def stepping(run: Any) -> Callable[[], None]:
    """A function that trains one iteration."""
    from contextlm.training.step import train_step

    batches = run.micro_batches(run.datasets.train, run.progress.consumed_samples, run.num_microbatches_at)

    def step() -> None:
        run.progress.consumed_samples += train_step(run, batches).num_samples
        run.progress.iteration += 1

    return step


def equal_tensors(run: Any) -> list[torch.Tensor]:
    """As many bytes as a checkpoint has: three times the weights."""
    weights = [weight.detach() for part in run.language_model for weight in part.parameters()]
    return [weight.clone() for _ in range(3) for weight in weights]


def timed(write: Callable[[Any, Path], None], what: Any, path: Path) -> Times:
    """A save that training waits for."""
    began = time.perf_counter()
    write(what, path)
    seconds = time.perf_counter() - began
    return Times(seconds, seconds)


def write_bytes(tensors: list[torch.Tensor], path: Path) -> None:
    """Nothing but the numbers."""
    with open(path, "wb") as file:
        for tensor in tensors:
            file.write(tensor.numpy().data)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(tensors: list[torch.Tensor], path: Path) -> None:
    """A file of torch's."""
    with open(path, "wb") as file:
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def saved(run: Any, folder: Path) -> None:
    """A checkpoint of ours, waited for."""
    from contextlm.checkpoints import saving

    saving.save(saving_in(run, folder), lambda text: None)


def saved_in_background(run: Any, folder: Path) -> Times:
    """The same while training goes on."""
    from contextlm.checkpoints.saving import Saving
    from contextlm.parallel.agreement import Agreement

    said: list[str] = []
    step = stepping(run)
    began = time.time()
    with Saving(saving_in(run, folder), Agreement(10), said.append) as saving:
        saving.save(last=False)
        stall, before = time.time() - began, run.progress.iteration
        while not said:
            step()
            saving.advance()
    whole = (folder / "latest_checkpointed_iteration.txt").stat().st_mtime - began
    return Times(stall, whole, run.progress.iteration - before)


def saving_in(run: Any, folder: Path) -> Any:
    """The run, with a folder to save in."""
    given = replace(run.config.checkpoint, save=str(folder), async_save=True)
    return replace(run, config=replace(run.config, checkpoint=given))


if __name__ == "__main__":
    main()
