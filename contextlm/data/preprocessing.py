"""From documents to `PREFIX_KEY_document.bin/.idx/.json`, in constant memory.

They are read in batches (`sources/`), encoded here or in worker processes (`document_encoding.py`), and
written in their order (`indexed_writer.py`). The program is `tools/preprocess_data.py`. Neither torch nor
megatron is imported.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from contextlm import atomic_files
from contextlm.config.schema import DataConfig
from contextlm.data.document_encoding import EncodedBatch, EncodingSettings, encode_batch
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.sidecar import Sidecar
from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.documents import Reject
from contextlm.data.sources.units import Unit, find_units
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError

BATCHES_AHEAD_PER_WORKER = 4


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """What to tokenize, and how.

    Attributes:
        inputs: files, patterns, folders, `-`; see `sources/units.py`.
        output_prefix: the datasets are `{output_prefix}_{key}_document`.
        data: tokenizer type, model and EOD token.
        json_keys: keys whose texts become a dataset each.
        append_eod: end each document that is not empty with EOD.
        txt_documents: what a document of a `.txt` file is: all of the `file`, or a block between `blank-line`s.
        workers: processes that tokenize; with 1 it happens in this one.
        on_error: `raise` at the first line that is no document, or `skip` it and log it.
    """

    inputs: tuple[str, ...]
    output_prefix: str
    data: DataConfig
    json_keys: tuple[str, ...] = ("text",)
    append_eod: bool = False
    txt_documents: str = "file"
    workers: int = 1
    on_error: str = "raise"

    def prefix(self, key: str) -> str:
        """Prefix of the dataset of one key."""
        return f"{self.output_prefix}_{key}_document"


@dataclass
class Progress:
    """How far it is; `documents` counts lines used, `tokens` and `text_bytes` are sums over the keys."""

    total_bytes: int  # 0 where it is not known
    read_bytes: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    rejected: int = 0
    seconds: float = 0.0


def preprocess(options: PreprocessingOptions, report: Callable[[Progress], None] = lambda _: None) -> Progress:
    """Write one dataset for each key; either all of them appear or none.

    Args:
        report: called after every batch.

    Raises:
        UserError: bad options, a line that is no document (`on_error="raise"`), nothing left to write.
    """
    units = _check(options)
    progress = Progress(sum(unit.size for unit in units))
    began = time.perf_counter()
    tokenizer = build_tokenizer(options.data)
    if options.append_eod and tokenizer.eod is None:
        raise UserError(f"--append-eod: this {tokenizer.kind} has no end-of-document token; set --eod-token")
    settings = EncodingSettings(options.data, options.json_keys, options.append_eod)
    text_bytes = [0] * len(options.json_keys)
    rejects: list[Reject] = []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(IndexedWriter(options.prefix(key), tokenizer.vocab_size)) for key in options.json_keys
        ]
        for batch in _encoded_batches(settings, options, units):
            if batch.rejects and options.on_error == "raise":
                raise _unusable(batch.rejects[0])
            rejects += batch.rejects
            for place, (writer, texts) in enumerate(zip(writers, batch.texts, strict=True)):
                writer.add_documents(texts.ids, texts.lengths, texts.sequences)
                text_bytes[place] += texts.text_bytes
            progress.read_bytes += batch.num_bytes
            progress.documents += len(batch.texts[0].sequences)
            progress.tokens = sum(writer.num_tokens for writer in writers)
            progress.text_bytes = sum(text_bytes)
            progress.rejected = len(rejects)
            progress.seconds = time.perf_counter() - began
            report(progress)
        if not progress.documents:
            raise UserError(f"--input {' '.join(options.inputs)}: there is no usable document in it")
    for writer, key_bytes in zip(writers, text_bytes, strict=True):
        _write_sidecar(writer, tokenizer, key_bytes)
    _write_rejects(options, rejects)
    progress.seconds = time.perf_counter() - began
    return progress


def rejects_path(options: PreprocessingOptions) -> Path:
    """Where the lines that were left out are listed, one JSON object each: file, line, reason."""
    return Path(f"{options.output_prefix}_rejects.jsonl")


def _check(options: PreprocessingOptions) -> list[Unit]:
    """What to read, once the options make sense."""
    problems = []
    if options.workers < 1:
        problems.append(f"--workers {options.workers}: at least 1 is needed")
    if not options.json_keys or len(set(options.json_keys)) < len(options.json_keys):
        problems.append(f"--json-keys {' '.join(options.json_keys)}: give each key once")
    try:
        units = find_units(options.inputs, options.txt_documents)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return units


def _encoded_batches(
    settings: EncodingSettings, options: PreprocessingOptions, units: list[Unit]
) -> Iterator[EncodedBatch]:
    """Encoded batches in the order of the input; only a few are in memory at any time."""
    batches = read_batches(units, options.json_keys)
    if options.workers == 1:
        for batch in batches:
            yield encode_batch(settings, batch)
        return
    # Spawned, not forked: a progress display may already run a thread, which a fork would tear.
    pool = ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn"))
    pending: deque[Future[EncodedBatch]] = deque()
    try:
        for batch in batches:
            pending.append(pool.submit(encode_batch, settings, batch))
            if len(pending) > BATCHES_AHEAD_PER_WORKER * options.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"--workers {options.workers}: a worker process died, most often for want of memory; use fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _unusable(reject: Reject) -> UserError:
    return UserError(
        f"{reject.path}:{reject.line}: {reject.reason}; mend it, or pass --on-error skip to leave such out"
    )


def _write_sidecar(writer: IndexedWriter, tokenizer: Tokenizer, text_bytes: int) -> None:
    dataset = IndexedDataset(writer.prefix)  # Opening it checks what was just written.
    Sidecar(
        tokenizer_type=tokenizer.kind,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod=tokenizer.eod,
        documents=writer.num_documents,
        tokens=dataset.num_tokens,
        text_bytes=text_bytes,
        max_token_id=writer.max_token_id,
        bin_bytes=dataset.bin_bytes,
        idx_sha256=dataset.index_sha256,
    ).write(writer.prefix)


def _write_rejects(options: PreprocessingOptions, rejects: list[Reject]) -> None:
    path = rejects_path(options)
    path.unlink(missing_ok=True)  # An earlier run's list would be taken for this one's.
    if rejects:
        lines = [json.dumps({"file": file, "line": line, "reason": reason}) for file, line, reason in rejects]
        atomic_files.write_bytes(path, ("\n".join(lines) + "\n").encode())
