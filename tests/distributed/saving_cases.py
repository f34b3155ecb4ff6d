"""What the ranks of a test of saves do; run by the pool."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch

BATCH = {"micro_batch_size": 1, "global_batch_size": 4, "lr": 1e-2, "eval_iters": 0, "log_interval": 100}


def save_and_train_on(here: str, there: str, values: dict[str, Any], forget_to_copy: bool = False) -> bool:
    """Save an iteration twice, and write it the second time only when training is three iterations further.

    Returns:
        whether those iterations changed every weight.

    Args:
        here, there: where the two are saved.
        values: of the configuration.
        forget_to_copy: sabotage: what is written later is what training has then.
    """
    from contextlm.checkpoints import saving, shards
    from contextlm.parallel.agreement import Agreement
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    with contextlib.ExitStack() as stack:
        run = stack.enter_context(small_run("gpt2", **BATCH, **values, async_save=True, initial_loss_scale=16.0))
        train_on = threading.Event()
        stack.enter_context(mock.patch.object(shards, "_write", _after(train_on, shards._write)))
        if forget_to_copy:
            stack.enter_context(mock.patch.object(shards.Shards, "to_host", lambda self: None))
            stack.enter_context(mock.patch.object(shards.copy, "deepcopy", lambda value: value))
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches_at)

        def step() -> None:
            run.progress.consumed_samples += train_step(run, batches).num_samples
            run.progress.iteration += 1

        step()
        train_on.set()
        saving.save(_saving_in(run, here), lambda text: None)
        train_on.clear()
        later = stack.enter_context(saving.Saving(_saving_in(run, there), Agreement(1), lambda text: None))
        later.save(last=False)
        weights = [weight for part in run.language_model for weight in part.parameters()]
        before = [weight.detach().clone() for weight in weights]
        for _ in range(3):
            later.advance()
            step()
        assert not (Path(there) / "latest_checkpointed_iteration.txt").exists()
        train_on.set()
        later._wait()
        if batches is not None:
            batches.close()
        return not any(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def train_with_faults(
    folder: str,
    values: dict[str, Any],
    fail_at: dict[int, int],
    what: str = "write",
    held: bool = False,
    losses: dict[int, float] | None = None,
) -> dict[str, Any]:
    """Train in `folder`, where some saves fail.

    Args:
        fail_at: how many saves of an iteration fail.
        what: "write" or "disk": a file on the last rank; "begin", "room" or "publish": on the first one.
        held: the last rank's files wait until the loop has left the iteration that they are of.
        losses: what evaluations find, by iteration.

    Returns:
        `said` what the user is told, `fault` what ended the run, if anything did, `failed` how many saves did.
    """
    from contextlm.analysis.measures import Evaluation
    from contextlm.checkpoints import saving, shards
    from contextlm.training import evaluation_sets
    from contextlm.training import train as loop
    from contextlm.training.faults import Fault
    from contextlm.training.metrics import Metrics
    from tests.distributed.runs import small_run

    found: dict[str, Any] = {"said": [], "fault": None}

    def say(self: Metrics, *sentences: str, every_rank: bool = False) -> None:
        found["said"] += [text for text in sentences if "checkpoint" in text and not text.startswith("nothing")]

    with small_run("gpt2", save=folder, load=folder, **(BATCH | values)) as run, contextlib.ExitStack() as stack:
        if run.runtime.rank == (run.runtime.world_size - 1 if what in ("write", "disk") else 0):
            stack.enter_context(_failing(what, dict(fail_at), run))
        if not held:  # what a save in the background comes to is known in the next iteration
            stack.enter_context(mock.patch.object(saving.Saving, "advance", saving.Saving._wait))
        elif run.layout.is_last_rank:
            write = shards._write

            def wait_and_write(writer: Any, bucket: Any, called_off: Any) -> Any:
                now = iteration_of(bucket[0])
                _wait_until(lambda: run.progress.iteration > min(now, run.num_iterations - 1))
                return write(writer, bucket, called_off)

            stack.enter_context(mock.patch.object(shards, "_write", wait_and_write))
        stack.enter_context(mock.patch.object(saving, "PAUSES_BEFORE_RETRIES", (0.0, 0.0)))
        stack.enter_context(mock.patch.object(Metrics, "say", say))
        if losses is not None:
            found_loss = lambda run, *_: Evaluation(losses[run.progress.iteration], 1, 0)  # noqa: E731
            stack.enter_context(mock.patch.object(evaluation_sets, "evaluate", found_loss))
        try:
            loop.train(run)
        except Fault as fault:
            found["fault"] = (fault.what, fault.remedy)
        return found | {"failed": run.progress.failed_saves}


def _failing(what: str, left: dict[int, int], run: Any) -> Any:
    """Patches what writes, so that it fails as often as `left` says, by iteration."""
    from contextlm.checkpoints import checkpoint_folder, manifest, retention, shards

    def often(function: Callable[..., Any], place: Callable[..., Any], failure: Callable[..., Any]) -> Any:
        def call(*arguments: Any) -> Any:
            now = iteration_of(place(*arguments))
            if left.get(now, 0) == 0:
                return function(*arguments)
            left[now] -= 1
            return failure(function, *arguments)

        return call

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def limited(write: Callable[..., Any], *arguments: Any) -> Any:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            return write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    first_file = lambda writer, bucket, called_off: bucket[0].replace("_1.distcp", "/never")  # noqa: E731
    nothing = lambda *_: mock.Mock(free=0)  # noqa: E731
    module, name, place, failure = {
        "write": (shards, "_write", first_file, full),
        "disk": (shards, "_write", first_file, limited),
        "begin": (checkpoint_folder, "begin", lambda temporary: temporary, full),
        "room": (retention.shutil, "disk_usage", lambda root: f"iter_{run.progress.iteration}.tmp/_0.distcp", nothing),
        "publish": (manifest, "write", lambda folder, files: folder, full),
    }[what]
    return mock.patch.object(module, name, often(getattr(module, name), place, failure))


def iteration_of(path: Any) -> int:
    """The iteration that is written in a temporary folder; -1 for a file that never fails."""
    found = re.search(r"iter_(\d+)\.tmp", str(path))
    return -1 if found is None or str(path).endswith("never") else int(found[1])


def _after(event: threading.Event, write: Callable[..., Any]) -> Callable[..., Any]:
    def wait_and_write(*arguments: Any) -> Any:
        assert event.wait(60)
        return write(*arguments)

    return wait_and_write


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _saving_in(run: Any, folder: str) -> Any:
    """The run, with another folder to save in."""
    given = replace(run.config.checkpoint, save=folder)
    return replace(run, config=replace(run.config, checkpoint=given))


def leave_while_saving(folder: str) -> dict[str, Any]:
    """A fault in training while a save is under way: what is left of it."""
    from contextlm.checkpoints import saving, shards
    from contextlm.parallel.agreement import Agreement
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH, async_save=True, save=folder) as run:
        before = threading.active_count()
        with contextlib.suppress(ZeroDivisionError), saving.Saving(run, Agreement(1), lambda text: None) as leaving:
            with mock.patch.object(shards, "_until", _slowly(shards._until)):
                run.progress.iteration = 1
                leaving.save(last=False)
                raise ZeroDivisionError
        left = sorted(path.name for path in Path(folder).iterdir())
        files = sorted(path.name for path in Path(folder).rglob("*") if path.is_file())
        threads = threading.active_count() - before
        run.progress.iteration = 2
        saving.save(run, lambda text: None)
        return {
            "left": left,
            "files": files,
            "threads": threads,
            "then": sorted(p.name for p in Path(folder).iterdir()),
        }


def _slowly(until: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def slowly(*arguments: Any) -> Iterator[Any]:
        for item in until(*arguments):
            yield item
            time.sleep(0.05)

    return slowly


def copies_of_each_phase(folder: str, copies: str) -> list[str]:
    """Save iterations 1, 2 and 3, keeping two, with a copy of the folder in each phase of the third save.

    A copy is what a kill would have left at that moment.
    """
    from contextlm.checkpoints import saving
    from tests.distributed.runs import small_run

    taken: list[str] = []
    with small_run("gpt2", **BATCH, save=folder, save_total_limit=2) as run:
        for iteration in (1, 2):
            run.progress.iteration = iteration
            saving.save(run, lambda text: None)
        run.progress.iteration = 3
        with contextlib.ExitStack() as stack:
            for module, name, moment in _phases():
                stack.enter_context(_copying(module, name, moment, folder, copies, taken))
            saving.save(run, lambda text: None)
    return taken


def _phases() -> list[tuple[Any, str, Callable[..., str | None]]]:
    """What is called in a save, and the name of the moment before it; None where it is of no interest."""
    from contextlm import atomic_files
    from contextlm.checkpoints import checkpoint_folder, manifest, retention, shards

    tracker = checkpoint_folder.TRACKER
    return [
        (checkpoint_folder, "begin", lambda *_: "before the folder"),
        (shards, "_write", lambda writer, bucket, _: f"before {Path(bucket[0]).name}"),
        (manifest, "digests", lambda folder, names: f"after {'.'.join(names)[:12]}"),
        (shards.Shards, "complete", lambda *_: "before the index"),
        (shards, "save_config", lambda *_: "before metadata.json"),
        (manifest, "write", lambda *_: "before the manifest"),
        (checkpoint_folder, "publish", lambda *_: "before it is published"),
        (atomic_files, "write_bytes", lambda path, _: "before the tracker" if Path(path).name == tracker else None),
        (os, "replace", lambda _, path: "before the tracker's name" if Path(path).name == tracker else None),
        (retention, "_delete", lambda _: "before the oldest goes"),
        (os, "rename", lambda _, path: f"before there is {Path(path).name}"),
        (shutil, "rmtree", lambda path, **_: f"before {Path(path).name} is removed" if Path(path).exists() else None),
        (atomic_files, "sync", lambda path: f"before {Path(path).name} is synced"),
    ]


def _copying(
    owner: Any, name: str, moment: Callable[..., str | None], folder: str, copies: str, taken: list[str]
) -> Any:
    original, lock = getattr(owner, name), threading.RLock()

    def copy_and_call(*arguments: Any, **options: Any) -> Any:
        with lock:  # the two files of a rank have a thread each: the second waits for the first
            if (now := moment(*arguments, **options)) is not None and now not in taken:
                taken.append(now)
                shutil.copytree(folder, Path(copies, now), symlinks=True)
            return original(*arguments, **options)

    return mock.patch.object(owner, name, copy_and_call)


def folder_after_next_begin(folder: Path) -> set[str]:
    """What is there when the next save has begun, without what it made itself."""
    from contextlm.checkpoints import checkpoint_folder

    checkpoint_folder.begin(folder / "iter_0000009.tmp")
    return {path.name for path in folder.iterdir() if path.is_dir()} - {"iter_0000009.tmp"}


def damage(folder: Path) -> list[str]:
    """The files of a checkpoint that are not those of its manifest."""
    from contextlm.checkpoints import manifest

    listed = json.loads((folder / manifest.MANIFEST).read_text())["files"]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {manifest.MANIFEST}
    found = manifest.digests(folder, there & listed.keys())
    return sorted({name for name in listed if found.get(name) != listed[name]} | (there - listed.keys()))


def die_while_saving(folder: str) -> dict[str, Any]:
    """Rank 1 goes while files are written; what rank 0 says, and how many processes a save has started."""
    from contextlm.checkpoints import saving, shards
    from contextlm.parallel.agreement import Agreement
    from contextlm.training.faults import Fault, in_words
    from tests.distributed.runs import small_run
    from tests.distributed.stop_cases import _close_connections

    def save_and_go(run: Any) -> None:
        with saving.Saving(run, Agreement(1), lambda text: None) as dying:
            dying.save(last=False)
            if run.runtime.rank == 1:
                _close_connections()
                raise RuntimeError("gone")
            dying._wait()

    what, children = "", psutil.Process().children
    with contextlib.suppress(Fault, RuntimeError), small_run("gpt2", **BATCH, async_save=True, save=folder) as run:
        before = children(recursive=True)
        run.progress.iteration = 1
        saving.save(run, lambda text: None)
        run.progress.iteration = 2
        try:
            with mock.patch.object(shards, "_until", _slowly(shards._until)), in_words():
                save_and_go(run)
        except Fault as fault:
            what = fault.what
            raise
    return {"what": what, "children": [child.name() for child in children(recursive=True) if child not in before]}


def stop_while_saving(folder: str, values: dict[str, Any]) -> dict[str, Any]:
    """A signal in iteration 3, while the last rank still writes iteration 2; in which order they are published."""
    from contextlm.checkpoints import shards
    from contextlm.training.metrics import Metrics
    from tests.distributed.stop_cases import train_with

    saved: list[int] = []

    def say(self: Metrics, *sentences: str, every_rank: bool = False) -> None:
        saved.extend(int(text[-7:]) for text in sentences if text.startswith("saved"))

    slow = mock.patch.object(shards, "_until", _slowly(shards._until))
    with mock.patch.object(Metrics, "say", say), slow if os.environ["RANK"] == "1" else contextlib.nullcontext():
        found = train_with(folder, 3, "signal", values)
    return {"stopped_by": found["stopped_by"], "saved": saved}
