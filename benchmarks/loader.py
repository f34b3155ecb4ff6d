"""python benchmarks/loader.py

Samples per second of the data loader alone, beside megatron-core's GPTDataset and what the fastest training step needs:
550,000 tokens/s a GPU at 1,024 tokens a sample. Documents of several lengths, page cache warm, one process for each of
the ranks of a node at once. A process of a real node has a core of its own: its rate is that per CPU second.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.loader import micro_batches
from contextlm.data.samples import EpochSamples, Samples
from table import machine, table

SEQ_LENGTH, MICRO_BATCH, VOCAB_SIZE = 1024, 8, 50257
NEEDED = 550_000 / SEQ_LENGTH  # samples/s of one GPU
START_SECONDS, RANK_SECONDS = 180, 600  # after which a process that died is noticed
DOCUMENT_TOKENS = (10, 100, 1000, 10_000)
BLEND = "blend of 8 x 1,000"


class Case(NamedTuple):
    """Datasets, by prefix, and what they are called."""

    name: str
    prefixes: tuple[str, ...]


class Rate(NamedTuple):
    """Samples per second, by the clock and of the time that the processor spent on them."""

    wall: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Samples per second of the loader.", allow_abbrev=False, epilog=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tokens", type=int, default=20_000_000, help="of each dataset [20000000]")
    parser.add_argument("--samples", type=int, default=4000, help="that are read of each [4000]")
    parser.add_argument("--ranks", type=int, default=8, help="processes that read at once, as on one node [8]")
    parser.add_argument("--quick", action="store_true", help="little data and one process, to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.tokens, options.samples, options.ranks = 20_000, 16, 1
    if min(options.tokens // 2_000, options.samples // MICRO_BATCH, options.ranks) < 1:
        raise SystemExit(f"error: give --tokens >= 2000, --samples >= {MICRO_BATCH} and --ranks >= 1")
    with tempfile.TemporaryDirectory() as folder:
        cases = make(Path(folder), options.tokens)
        print(machine(), flush=True)
        print(f"needed: {NEEDED:,.0f} samples/s of a rank, {options.ranks * NEEDED:,.0f} of {options.ranks} ranks")
        together = at_once(cases, options.samples, options.ranks)
        rows = [row(case, each, options.samples, Path(folder)) for case, each in zip(cases, together, strict=True)]
    headings = ("tokens a document", "Megatron/CPU s", "ours/CPU s", "x Megatron", "x needed")
    print(table((*headings, f"{options.ranks} at once, each/s", "x needed"), rows))


def row(case: Case, each: float, num_samples: int, folder: Path) -> tuple[str, ...]:
    """One line of the table; `each` is the rate of a process beside others."""
    ours = alone(case, num_samples)
    peer = of_megatron(case, num_samples, folder) if len(case.prefixes) == 1 else None
    return (
        case.name,
        "-" if peer is None else f"{peer.cpu:,.0f}",
        f"{ours.cpu:,.0f}",
        "-" if peer is None else f"{ours.cpu / peer.cpu:.1f}",
        f"{ours.cpu / NEEDED:.0f}",
        f"{each:,.0f}",
        f"{each / NEEDED:.1f}",
    )


def make(folder: Path, num_tokens: int) -> list[Case]:
    """Write the datasets."""
    draw = np.random.default_rng(0)

    def write(name: str, mean: int, tokens: int) -> str:
        lengths = np.maximum(1, draw.poisson(mean, max(1, tokens // mean)))
        lengths[0] += 2 * SEQ_LENGTH  # a sample at least
        with IndexedWriter(folder / name, VOCAB_SIZE) as writer:
            writer.add_documents(
                draw.integers(0, VOCAB_SIZE, lengths.sum()), lengths, np.ones(len(lengths), dtype=np.int64)
            )
        return str(folder / name)

    cases = [Case(f"{mean:,}", (write(str(mean), mean, num_tokens),)) for mean in DOCUMENT_TOKENS]
    return [*cases, Case(BLEND, tuple(write(f"part{part}", 1000, num_tokens // 8) for part in range(8)))]


def opened(case: Case) -> Samples:
    """The samples of a case, their order at hand."""
    sources = [
        EpochSamples(IndexedDataset(prefix), slice(None), SEQ_LENGTH, 1234, VOCAB_SIZE) for prefix in case.prefixes
    ]
    samples: Any = sources[0] if len(sources) == 1 else BlendedSamples(sources, range(1, len(sources) + 1))
    samples.prepare(0, 1)
    return samples


def alone(case: Case, num_samples: int) -> Rate:
    """One process, without the loader's thread, whose time could not be told from that of others."""
    samples = opened(case)

    def read() -> None:
        for start in range(0, num_samples, MICRO_BATCH):
            np.stack([samples.sample(start + i) for i in range(MICRO_BATCH)])

    return _rate(read, num_samples)


def of_megatron(case: Case, num_samples: int, folder: Path) -> Rate:
    """megatron-core's dataset of the same documents, its tokens mapped."""
    from megatron.core.datasets import gpt_dataset, indexed_dataset
    from megatron.core.datasets.utils import Split

    config = gpt_dataset.GPTDatasetConfig(
        random_seed=1234,
        sequence_length=SEQ_LENGTH,
        split="1,0,0",
        path_to_cache=str(folder / "megatron"),
        tokenizer=_Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    source = indexed_dataset.IndexedDataset(case.prefixes[0])
    documents = np.arange(len(source), dtype=np.int32)
    dataset = gpt_dataset.GPTDataset(source, case.prefixes[0], documents, num_samples, Split.train, config)

    def read() -> None:
        for start in range(0, num_samples, MICRO_BATCH):
            parts = [dataset[start + i] for i in range(MICRO_BATCH)]
            np.stack([part["tokens"] for part in parts]), np.stack([part["labels"] for part in parts])

    return _rate(read, num_samples)


class _Tokenizer:
    """What megatron-core's dataset asks for."""

    vocab_size, eod, pad = VOCAB_SIZE, 0, 0
    unique_identifiers: dict[str, str] = {}


def at_once(cases: Sequence[Case], num_samples: int, num_ranks: int) -> list[float]:
    """Of each case, samples/s of each of several processes that read at the same time, by the slowest."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(num_ranks), context.Queue()
    ranks = [
        context.Process(target=_one_rank, args=(cases, num_samples, rank, barrier, rates), daemon=True)
        for rank in range(num_ranks)
    ]
    for process in ranks:
        process.start()
    found = [rates.get(timeout=START_SECONDS + RANK_SECONDS) for _ in ranks]
    for process in ranks:
        process.join()
    return [min(of_case) for of_case in zip(*found, strict=True)]


def _one_rank(cases: Sequence[Case], num_samples: int, rank: int, barrier: Any, rates: Any) -> None:
    """Puts samples/s of each case, through the whole loader."""
    found = []
    for case in cases:
        with contextlib.closing(micro_batches(opened(case), 0, MICRO_BATCH, rank, barrier.parties, 1)) as batches:
            next(batches)
            barrier.wait(START_SECONDS)
            began = time.perf_counter()
            for _ in range(num_samples // MICRO_BATCH):
                next(batches)
            found.append(num_samples / (time.perf_counter() - began))
    rates.put(found)


def _rate(read: Callable[[], None], num_samples: int) -> Rate:
    read()  # fills the page cache
    began, cpu_began = time.perf_counter(), time.thread_time()
    read()
    return Rate(num_samples / (time.perf_counter() - began), num_samples / (time.thread_time() - cpu_began))


if __name__ == "__main__":
    main()
