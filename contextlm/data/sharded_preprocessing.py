"""Preprocessing in pieces: one shard of a job array, or all partitions of a run, merged in the end.

A piece is a contiguous share of the input (`sources/sharing.py`); the pieces merged in order (`merging.py`) are the
bytes of one run. A finished piece is recognised by its sidecar, which names its run and its share, and is not made
again; another input or option makes another run, and then it is. Who does the work: this process, or the nodes of
a Ray cluster (`ray_executor.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contextlm.data.indexed import file_sha256
from contextlm.data.merging import merge_datasets
from contextlm.data.preprocessing import (
    Plan,
    PreprocessingOptions,
    Progress,
    make_plan,
    no_document,
    rejects_path,
    write_part,
)
from contextlm.data.reject_log import RejectLog
from contextlm.data.sidecar import Part, Sidecar, read_sidecar
from contextlm.data.sources.documents import Reject
from contextlm.data.sources.sharing import share
from contextlm.data.sources.unit import STDIN
from contextlm.errors import UserError

Report = Callable[[Progress], None]
Say = Callable[[str], None]


class Piece(NamedTuple):
    """A part of a run, and the options that write it under a name of its own."""

    options: PreprocessingOptions
    part: Part


# Makes pieces that are not finished, in any order, and gives what was done for each.
Executor = Callable[[Plan, Sequence[Piece], Report, Say], Iterator[Progress]]


def preprocess_shard(
    options: PreprocessingOptions, num_shards: int, shard: int, report: Report = lambda _: None, say: Say = print
) -> tuple[PreprocessingOptions, Progress]:
    """Write shard `shard`, counted from 0, unless it is finished; the options name its datasets.

    Raises:
        UserError: as `preprocess`, or a shard that does not exist.
    """
    if not 0 <= shard < num_shards:
        raise UserError(f"--shard {shard}: with --num-shards {num_shards} the shards are 0 to {num_shards - 1}")
    plan = _plan(options, "--num-shards", num_shards)
    prefix = f"{options.output_prefix}-{shard:05d}-of-{num_shards:05d}"
    piece = Piece(dataclasses.replace(options, output_prefix=prefix), Part(plan.run, shard, num_shards))
    sidecars = _finished(piece, say)
    return piece.options, write_piece(plan, piece, report, say) if sidecars is None else _totals(sidecars)


def preprocess_partitions(
    options: PreprocessingOptions,
    partitions: int,
    report: Report = lambda _: None,
    say: Say = print,
    executor: Executor | None = None,
) -> Progress:
    """Write the whole run in pieces and merge them; after an interruption the finished ones are kept.

    The pieces lie in the folder `{output_prefix}.partitions` until all is done, so twice the room is needed.

    Args:
        executor: who makes the pieces; this process, one after the other, if not given.
    """
    if partitions < 1:
        raise UserError(f"--partitions {partitions}: at least 1 is needed")
    began = time.perf_counter()
    plan = _plan(options, "--partitions", partitions)
    folder = Path(f"{options.output_prefix}.partitions")
    sidecars = _finished(Piece(options, Part(plan.run)), say)
    resumed = sidecars is not None
    if sidecars is None:
        pieces = [
            Piece(
                dataclasses.replace(options, output_prefix=str(folder / f"{shard:05d}-of-{partitions:05d}")),
                Part(plan.run, shard, partitions),
            )
            for shard in range(partitions)
        ]
        missing = [piece for piece in pieces if _finished(piece, say) is None]
        resumed = len(missing) < partitions
        for _ in (executor or _in_this_process)(plan, missing, report, say):
            pass
        sidecars = _merge(options, pieces)
    shutil.rmtree(folder, ignore_errors=True)
    totals = _totals(sidecars)
    totals.total_bytes = totals.read_bytes = sum(unit.size for unit in plan.units)
    totals.seconds = 0.0 if resumed else time.perf_counter() - began
    return totals


def write_piece(plan: Plan, piece: Piece, report: Report = lambda _: None, say: Say = lambda _: None) -> Progress:
    """Write the datasets of one piece."""
    if plan.run != piece.part.run:
        raise UserError(
            f"{piece.options.output_prefix}: the inputs or the tokenizer are not those of the machine that started "
            "the run; they must lie at the same path on all machines and not change meanwhile"
        )
    units = share(plan.units, piece.part.num_shards, piece.part.shard)
    return write_part(plan, piece.options, units, piece.part, report, say)


def _plan(options: PreprocessingOptions, flag: str, number: int) -> Plan:
    plan = make_plan(options)
    if number > 1 and any(unit.path == STDIN for unit in plan.units):
        raise UserError(f"{flag} {number}: --input - cannot be read in pieces; write it to a file first")
    return plan


def _in_this_process(plan: Plan, pieces: Sequence[Piece], report: Report, say: Say) -> Iterator[Progress]:
    sizes = [sum(unit.size for unit in share(plan.units, part.num_shards, part.shard)) for _, part in pieces]
    done = Progress(sum(sizes))
    for piece in pieces:
        before = done
        done = before.plus(write_piece(plan, piece, functools.partial(_report_more, report, before), say))
        yield done


def _report_more(report: Report, before: Progress, now: Progress) -> None:
    report(before.plus(now))


def _finished(piece: Piece, say: Say) -> list[Sidecar] | None:
    """The sidecars of all keys, if all datasets are there, whole, and of this part of this run."""
    options = piece.options
    sidecars = []
    for key in options.json_keys:
        prefix = options.prefix(key)
        try:
            sidecar = read_sidecar(prefix)
        except UserError:
            return None
        if sidecar is None or not _is_whole(prefix, sidecar):
            return None
        if sidecar.part != piece.part:
            say(f"{prefix} was made from other inputs or with other options: it is made anew")
            return None
        if sidecar.rejects and (options.on_error == "raise" or not rejects_path(options).is_file()):
            return None
        sidecars.append(sidecar)
    say(f"{options.output_prefix}: finished before, {sidecars[0].documents:,} documents")
    return sidecars


def _is_whole(prefix: str, sidecar: Sidecar) -> bool:
    tokens, index = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    return (
        tokens.is_file()
        and index.is_file()
        and tokens.stat().st_size == sidecar.bin_bytes
        and file_sha256(index) == sidecar.idx_sha256
    )


def _totals(sidecars: Sequence[Sidecar]) -> Progress:
    """Of datasets that are there; their speed is not known."""
    return Progress(
        total_bytes=0,
        documents=sidecars[0].documents,
        tokens=sum(sidecar.tokens for sidecar in sidecars),
        text_bytes=sum(sidecar.text_bytes for sidecar in sidecars),
        rejected=sidecars[0].rejects,
    )


def _merge(options: PreprocessingOptions, pieces: Sequence[Piece]) -> list[Sidecar]:
    """Datasets and reject logs of all pieces as those of one run."""
    lacking = [piece.options.output_prefix for piece in pieces if _finished(piece, lambda _: None) is None]
    if lacking:
        raise UserError(
            f"{', '.join(lacking)}: made by another machine, and not to be found on this one; --output-prefix must "
            "lie in a folder that all machines share"
        )
    if not any(_sidecar(piece.options.prefix(options.json_keys[0])).documents for piece in pieces):
        raise no_document(options)
    with RejectLog(rejects_path(options)) as log:
        for path in (rejects_path(piece.options) for piece in pieces):
            if path.is_file():
                with open(path, encoding="utf-8") as stream:
                    log.add(Reject(*json.loads(line).values()) for line in stream)
        log.finish()
    for key in options.json_keys:
        merge_datasets([piece.options.prefix(key) for piece in pieces], options.prefix(key))
    return [_sidecar(options.prefix(key)) for key in options.json_keys]


def _sidecar(prefix: str) -> Sidecar:
    """That of a dataset which was just written."""
    found = read_sidecar(prefix)
    assert found is not None
    return found
